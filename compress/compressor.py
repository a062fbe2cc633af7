"""Pipelines: several methods as one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compress.attach import Attachable
from compress.errors import ConfigError
from compress.methods import STAGES

_COMPANIONS = {
    "before_encoder": ("reuses_patches",),
    "inside_encoder": ("merge_point", "merge_blocks", "scored_block", "weighs_by_size"),
    "inside_llm": ("layers", "merge_layer", "cuts", "query"),
    "at_decoding": ("decode_layer",),
}
"""Attributes that belong to a stage."""


@dataclass(frozen=True, init=False)
class Pipeline(Attachable):
    """Methods that work one after the other: ``Pipeline(RPM(), InfoMerge(retention=0.1), MATM())``.

    A pipeline has exactly the stages and fields that its methods have, so ``isinstance(pipeline, BeforeLLM)`` says
    whether one of them merges before the language model. A field that several methods have is that of the last one.

    Attributes:
        methods: in the order given.

    Raises:
        ConfigError: no method, one without a stage, or two with the same stage.
    """

    methods: tuple[Any, ...]

    def __init__(self, *methods: Any) -> None:
        object.__setattr__(self, "methods", methods)
        if not methods:
            raise ConfigError("the pipeline has no method; give at least one")
        for method in methods:
            if not any(hasattr(method, stage) for stage in STAGES):
                raise ConfigError(
                    f"{method!r} is not a method; a method must have at least one of the stages {', '.join(STAGES)}"
                )
        for stage in STAGES:
            holders = [method for method in methods if hasattr(method, stage)]
            if len(holders) > 1:
                names = " and ".join(type(method).__name__ for method in holders)
                raise ConfigError(f"{names} both have the stage {stage}; a pipeline takes each stage once")
            if holders:
                # From Python 3.12 on, isinstance() with a protocol asks for attributes without __getattr__.
                for name in (stage, *_COMPANIONS.get(stage, ())):
                    if hasattr(holders[0], name):
                        object.__setattr__(self, name, getattr(holders[0], name))

    def at_depth(self, depth: int, *, first: int = 1) -> Pipeline:
        """Return these methods; those that choose decoder layers by the model's depth have their layers chosen."""
        return Pipeline(
            *(method.at_depth(depth, first=first) if hasattr(method, "at_depth") else method for method in self.methods)
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name != "methods":
            for method in reversed(self.methods):
                if hasattr(method, name):
                    return getattr(method, name)
        raise AttributeError(f"no method of {type(self).__name__} has {name!r}")
