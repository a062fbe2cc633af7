"""Methods that are measured, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from compress.accuracy import extremes
from compress.density import MapChoice
from compress.errors import ConfigError
from compress.methods import METHODS, Method, build

Group = Literal["method", "stage", "ablation", "baseline", "published"]
Kept = Literal["patches", "tokens_out", "tokens_inner"]

PLACED: Final = {"positions": "original"}
"""The model was trained on videos of one length, so that where a token stands tells it when it was; tokens that are
renumbered without gaps are all taken for late ones. The rows -dense show by how much."""

LAYERS: Final = {"layers": "2,3"}
"""Of the demo model's six decoder layers, the relative depth of MeToM's 13 to 15 of 28."""

METOM: Final = {**LAYERS, **PLACED}

INFOMERGE: Final[dict[str, str]] = {}

DRAWS: Final = 5
"""Times that a random method is run."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A method with its settings.

    Attributes:
        name: of its rows and its curve.
        base: name in `compress.methods`, or everything or oracle.
        group: what it is measured for.
        summary: one line.
        settings: fields as text, see `compress.settings`.
        map: where the density of patches comes from.
        kept: what its retention is a fraction of: patches, tokens that enter the language model, or tokens after the
            merge inside it.
        draws: times it is run, with other seeds.
    """

    name: str
    base: str
    group: Group
    summary: str
    settings: Mapping[str, str] = field(default_factory=dict)
    map: MapChoice = "auto"
    kept: Kept = "tokens_out"
    draws: int = 1

    def build(self, retention: float, *, seed: int, draw: int, occupied: NDArray[np.bool_]) -> Any:
        """Build the compressor for a clip.

        Args:
            retention: retained fraction.
            seed: of the clip.
            draw: which of `draws`.
            occupied: bool (T, rows, cols), cells that hold an object.

        Raises:
            ConfigError: a setting is not allowed.
        """
        settings = dict(self.settings)
        if self.base == "random":
            settings["seed"] = f"{seed},{draw}"
        if self.base in METHODS:
            neutral = METHODS[self.base].neutral if retention == 1 else {}
            return build(self.base, retention=retention, settings={**settings, **neutral})
        if self.base == "everything":
            return extremes.Everything()
        placed: dict[str, Any] = {name: value for name, value in settings.items() if name == "positions"}
        return extremes.Oracle(retention=retention, occupied=occupied, **placed)

    def with_settings(self, name: str, settings: Mapping[str, str], *, map: MapChoice | None = None) -> Measured:
        """Return the same method under another name with some settings changed."""
        return replace(self, name=name, settings={**self.settings, **settings}, map=map or self.map)


_MEASURED: Final = (
    Measured(name="metom", base="metom", group="method", summary="MeToM: RPM, BTM and MATM", settings=METOM),
    Measured(
        name="rpm", base="rpm", group="stage", summary="its first stage only; retention of patches", kept="patches"
    ),
    Measured(name="btm", base="btm", group="stage", summary="its second stage only", settings=PLACED),
    Measured(
        name="matm",
        base="matm",
        group="stage",
        summary="its third stage only; retention of tokens after the merge",
        settings=LAYERS,
        kept="tokens_inner",
    ),
    Measured(name="infomerge", base="infomerge", group="method", summary="InfoMerge", settings=INFOMERGE),
    Measured(name="cover", base="cover", group="method", summary="Cover, the method of this project"),
    Measured(
        name="cover-reuse",
        base="cover",
        group="ablation",
        summary="Cover over a tower that computes patches again where they change",
        settings={"reuse": "4"},
    ),
    *(
        Measured(
            name=f"rpm-{name}",
            base="rpm",
            group="ablation",
            summary=f"RPM by the map {name}",
            map=name,
            kept="patches",
        )
        for name in ("innovation", "carried", "texture")
    ),
    *(
        Measured(
            name=f"infomerge-no-{name}",
            base="infomerge",
            group="ablation",
            summary=f"InfoMerge without {name}: {parameter} = 0",
            settings={**INFOMERGE, parameter: "0"},
        )
        for name, parameter in (("tfd", "rho"), ("uniqueness", "alpha"), ("richness", "beta"))
    ),
    Measured(
        name="metom-core",
        base="metom",
        group="ablation",
        summary="MeToM with folding around core tokens",
        settings={**METOM, "fold": "core"},
    ),
    Measured(
        name="metom-literal",
        base="metom",
        group="ablation",
        summary="MeToM's budget as an upper bound",
        settings={**METOM, "refill": "no"},
    ),
    *(
        Measured(
            name=f"{base}-dense",
            base=base,
            group="ablation",
            summary="its tokens renumbered without gaps",
            settings={**settings, "positions": "contiguous"},
        )
        for base, settings in (("metom", METOM), ("infomerge", INFOMERGE))
    ),
    Measured(
        name="random", base="random", group="baseline", summary=f"random tokens, mean of {DRAWS} draws", draws=DRAWS
    ),
    Measured(name="stride", base="stride", group="baseline", summary="tokens at equal distances"),
    Measured(name="frames", base="frames", group="baseline", summary="fewer frames at equal distances"),
    Measured(name="pool-space", base="pool", group="baseline", summary="means of cells within frames"),
    Measured(
        name="pool-time", base="pool", group="baseline", summary="means of runs of frames", settings={"over": "time"}
    ),
    Measured(name="smaller", base="smaller", group="baseline", summary="smaller frames, resized by area"),
    Measured(
        name="oracle", base="oracle", group="baseline", summary="cells that hold an object, whatever is asked"
    ),
)  # fmt: skip

_BASES: Final = {method.base for method in _MEASURED}


def _kept(entry: Method) -> Kept:
    """Return what a method's retention is a fraction of."""
    if "before_llm" in entry.stages:
        return "tokens_out"
    return "tokens_inner" if "inside_llm" in entry.stages else "patches"


_OTHERS: Final = tuple(
    Measured(
        name=name,
        base=name,
        group="published",
        summary=entry.summary,
        kept=_kept(entry),
    )
    for name, entry in METHODS.items()
    if name not in _BASES and entry.stages != ("at_decoding",)  # an answer is one step
)
"""Methods of the registry that need no setting here."""

MEASURED: Final[Mapping[str, Measured]] = {method.name: method for method in (*_MEASURED, *_OTHERS)}

IDENTITY: Final = Measured(
    name="everything", base="everything", group="baseline", summary="all tokens, through the same hooks"
)
"""Its answers must be the plain model's, bit for bit."""


def choose(text: str) -> tuple[Measured, ...]:
    """List methods by name or group, separated by commas; `default`: the methods and the baselines, `all`: everything.

    Raises:
        ConfigError: a name is unknown.
    """
    chosen: dict[str, Measured] = {}
    for name in (part.strip() for part in text.split(",")):
        for method in _expand(name):
            chosen[method.name] = method
    return tuple(chosen.values())


def _expand(name: str) -> Iterable[Measured]:
    if name == "all":
        return MEASURED.values()
    groups = {"default": ("method", "baseline")} | {group: (group,) for group in get_args(Group)}
    if name in groups:
        return [method for method in MEASURED.values() if method.group in groups[name]]
    if name not in MEASURED:
        known = ", ".join(("all", *groups, *MEASURED))
        raise ConfigError(f"unknown measured method {name!r}; choose from {known}")
    return [MEASURED[name]]
