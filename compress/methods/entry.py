"""Entry of a method in the registry: what it does, what it needs and where it comes from."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Stage = Literal["plan_frames", "before_encoder", "inside_encoder", "before_llm", "inside_llm", "at_decoding"]

STAGES: Final[tuple[Stage, ...]] = (
    "plan_frames",
    "before_encoder",
    "inside_encoder",
    "before_llm",
    "inside_llm",
    "at_decoding",
)
"""What a method can do, in the order in which a model meets it; see `compress.stage`."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of the registry.

    Attributes:
        name: what users type.
        target: ``module:class``.
        stages: what it implements, see `compress.stage`.
        signals: what it reads besides the tokens.
        source: where it was published.
        summary: one line.
        budget: how exactly the retention is met.
        query_agnostic: whether it never looks at the question, so that what it keeps serves later questions too.
        licence: of the authors' code, or why none was used.
        combines: what it works together with in a `Pipeline`.
        neutral: fields, as text, that must be set for the method to change nothing at retention 1; none where its
            retention alone decides.
    """

    name: str
    target: str
    stages: tuple[Stage, ...]
    signals: tuple[str, ...]
    source: str
    summary: str
    budget: str = "exact"
    query_agnostic: bool = True
    licence: str = "no code published"
    combines: str = "rpm before, a method inside the language model after"
    neutral: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> type[Any]:
        """Import the method's class."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(module), name)
        return loaded
