"""The methods by name: what each does, needs and comes from. Classes are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from compress.errors import ConfigError

Hook = Literal["plan_frames", "before_encoder", "before_llm", "inside_llm"]

HOOKS: Final[tuple[Hook, ...]] = ("plan_frames", "before_encoder", "before_llm", "inside_llm")
"""What a method can do, in the order in which a model meets it; see `compress.stage`."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """An entry of the registry.

    Attributes:
        name: what users type.
        target: ``module:class``.
        hooks: what it implements, see `compress.stage`.
        signals: what it reads beside the tokens.
        source: where it was published.
        summary: one line.
        switches: its most telling fields; `compress.settings.list_settings` gives all.
    """

    name: str
    target: str
    hooks: tuple[Hook, ...]
    signals: tuple[str, ...]
    source: str
    summary: str
    switches: tuple[str, ...]

    def load(self) -> type[Any]:
        """The method's class."""
        module, _, name = self.target.partition(":")
        loaded: type[Any] = getattr(importlib.import_module(module), name)
        return loaded


_METOM: Final = "MeToM (CVPR 2026)"
_INFOMERGE: Final = "InfoMerge (arXiv 2606.02161)"

METHODS: Final[Mapping[str, Method]] = {
    method.name: method
    for method in (
        Method(
            name="metom",
            target="compress.metom:MeToM",
            hooks=HOOKS,
            signals=("density", "packet_size", "attention"),
            source=_METOM,
            summary="RPM before the encoder, BTM before and MATM inside the language model",
            switches=("tau_tem", "window", "rounds", "fold", "refill", "m_min", "positions", "layers", "merge_percent"),
        ),
        Method(
            name="rpm",
            target="compress.metom:RPM",
            hooks=("before_encoder",),
            signals=("density",),
            source=_METOM,
            summary="merge connected patches of low residual density",
            switches=("tau", "target_keep", "connectivity", "max_region"),
        ),
        Method(
            name="btm",
            target="compress.metom:BTM",
            hooks=("plan_frames", "before_llm"),
            signals=("density", "packet_size"),
            source=_METOM,
            summary="budget by packet size, pairs across frames, folding within frames",
            switches=("m_min", "tau_tem", "window", "rounds", "fold", "refill", "positions"),
        ),
        Method(
            name="matm",
            target="compress.metom:MATM",
            hooks=("inside_llm",),
            signals=("attention",),
            source=_METOM,
            summary="merge what the prompt attends to least, between two decoder layers",
            switches=("layers", "merge_percent", "average", "query"),
        ),
        Method(
            name="infomerge",
            target="compress.infomerge:InfoMerge",
            hooks=("before_llm",),
            signals=("saliency", "frame_features"),
            source=_INFOMERGE,
            summary="salient tokens without static repeats, context tokens where a segment informs most",
            switches=(
                *("alpha", "beta", "rho", "lam", "tfd", "budget"),
                *("richness", "assignment", "hard_mask", "substitute"),
            ),
        ),
    )
}


def find(name: str) -> Method:
    """The entry of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def build(name: str, *, retention: float | None = None, settings: Mapping[str, str] | None = None) -> Any:
    """A method by name, with fields from text.

    Args:
        name: a key of `METHODS`.
        retention: retained fraction; RPM takes it as ``target_keep``, MATM merges the rest. None for the default.
        settings: fields as text, ``{"tau_tem": "0.8"}``, see `compress.settings.configure`.

    Raises:
        ConfigError: the method or a field does not exist, or a value is not allowed.
    """
    from compress.settings import configure

    method = find(name).load()
    if retention is None:
        built = method()
    elif name == "rpm":
        built = method(target_keep=retention)
    elif name == "matm":
        from compress.budget import check_retention

        check_retention(retention)
        built = method(merge_percent=100 * (1 - retention))
    else:
        built = method(retention=retention)
    return configure(built, settings or {})
