"""Several stages as one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compress.attach import Attachable
from compress.errors import ConfigError
from compress.methods import HOOKS


@dataclass(frozen=True, init=False)
class Pipeline(Attachable):
    """Stages that work one after the other: ``Pipeline(RPM(), InfoMerge(retention=0.1), MATM())``.

    A pipeline has exactly the hooks and fields that its stages have, so ``isinstance(pipeline, BeforeLLM)`` tells
    whether one of them merges before the language model. Of a field that several stages have, the last one's is shown.

    Attributes:
        stages: in the order given.

    Raises:
        ConfigError: no stage, one without a hook, or two with the same hook.
    """

    stages: tuple[Any, ...]

    def __init__(self, *stages: Any) -> None:
        object.__setattr__(self, "stages", stages)
        if not stages:
            raise ConfigError("a pipeline needs at least one stage")
        for stage in stages:
            if not any(hasattr(stage, hook) for hook in HOOKS):
                raise ConfigError(f"{stage!r} is no stage; it must have one of {', '.join(HOOKS)}")
        for hook in HOOKS:
            holders = [stage for stage in stages if hasattr(stage, hook)]
            if len(holders) > 1:
                names = " and ".join(type(stage).__name__ for stage in holders)
                raise ConfigError(f"{names} both have {hook}; a pipeline takes each hook once")
            if holders:
                # From Python 3.12 on, isinstance() with a protocol asks for attributes without __getattr__.
                object.__setattr__(self, hook, getattr(holders[0], hook))

    def at_depth(self, depth: int, *, first: int = 1) -> Pipeline:
        """The same stages, those that choose decoder layers by the depth of the model with their layers chosen."""
        return Pipeline(
            *(stage.at_depth(depth, first=first) if hasattr(stage, "at_depth") else stage for stage in self.stages)
        )

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and name != "stages":
            for stage in reversed(self.stages):
                if hasattr(stage, name):
                    return getattr(stage, name)
        raise AttributeError(f"no stage of {type(self).__name__} has {name!r}")
