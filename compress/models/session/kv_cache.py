"""Cache of keys and values, under the name that the installed transformers gives it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

from transformers.masking_utils import create_causal_mask

CACHE: Final = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""The argument of models, layers and masks, and the field of outputs: ``cache`` since transformers 5.24."""


def cache_of(output: Any) -> Any:
    """Return the cache in a model's output; None without one."""
    return getattr(output, CACHE, None)


def given_cache(inputs: Mapping[str, Any]) -> Any:
    """Return the cache among the arguments of a call, under its new or old name; None without one."""
    found = inputs.get(CACHE)
    return inputs.get("past_key_values") if found is None else found
