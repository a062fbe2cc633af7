"""Taps that observe or replace what single attention modules compute, whichever kernel is configured."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

Kernel = Callable[..., tuple[Tensor, Tensor | None]]
"""An attention function of transformers: (module, query, key, value, mask, **options) -> output, weights."""

Tap = Callable[..., tuple[Tensor, Tensor | None]]
"""(kernel, module, query, key, value, mask, **options) -> what the kernel returns."""

SUFFIX = "_compress"
_TAP = "_compress_tap"


def chain(*several: Mapping[nn.Module, Tap]) -> dict[nn.Module, Tap]:
    """Join taps; of a module that has two, the first gets the second for its kernel."""
    joined: dict[nn.Module, Tap] = {}
    for taps in reversed(several):
        for module, tap in taps.items():
            joined[module] = _before(tap, joined[module]) if module in joined else tap
    return joined


def _before(first: Tap, second: Tap) -> Tap:
    def tap(kernel: Kernel, module: nn.Module, *tensors: Any, **options: Any) -> Any:
        return first(partial(second, kernel), module, *tensors, **options)

    return tap


@contextmanager
def tapped(model: PreTrainedModel, taps: dict[nn.Module, Tap]) -> Iterator[None]:
    """Insert taps in front of the attention kernel of single modules.

    The name that is registered wraps the configured one and keeps it as a prefix, since transformers looks for the
    word "flash" in it; a mask function goes with it, without which padding would be ignored.

    Args:
        model: the (sub)model whose configuration names the kernel.
        taps: attention module of the model -> its tap.
    """
    configured = model.config._attn_implementation or "eager"
    name = configured + SUFFIX
    AttentionInterface.register(name, _dispatch(configured))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[configured])
    try:
        model.set_attn_implementation(name)
        for module, tap in taps.items():
            setattr(module, _TAP, tap)
        yield
    finally:
        for module in taps:
            if hasattr(module, _TAP):
                delattr(module, _TAP)
        model.set_attn_implementation(configured)


def _dispatch(configured: str) -> Kernel:
    """Return the attention function that passes calls to a module's tap, if it has one."""

    def attend(module: nn.Module, *tensors: Any, **options: Any) -> tuple[Tensor, Tensor | None]:
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        kernel: Kernel = ALL_ATTENTION_FUNCTIONS.get_interface(configured, eager)
        tap: Tap | None = getattr(module, _TAP, None)
        if tap is None:
            return kernel(module, *tensors, **options)
        return tap(kernel, module, *tensors, **options)

    return attend
