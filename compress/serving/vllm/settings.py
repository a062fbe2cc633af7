"""Settings of a served method: the key ``compress`` of vLLM's ``--hf-overrides``, and ``--video-pruning-rate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, get_args

from compress.budget import check_retention, count_tokens
from compress.compressor import Pipeline
from compress.density import MAP_CHOICES, MapChoice
from compress.errors import ConfigError
from compress.methods import build, find
from compress.stage import AtDecoding, BeforeEncoder, BeforeLLM, InsideEncoder, InsideLLM

KEY: Final = "compress"
"""Key of ``--hf-overrides``."""

Saliency = Literal["auto", "none"]
"""``auto`` measures attention in the vision encoder where the method reads saliency, as `attach` does."""

_FIELDS: Final = ("method", "settings", "map", "saliency", "rpm")
_DIGITS: Final = 9
"""Decimal places that a retention keeps: 1 - 0.9 is not 0.1 in float64."""


@dataclass(frozen=True, kw_only=True)
class ServedMethod:
    """A method as a server runs it.

    Attributes:
        method: its name, see `compress.methods.METHODS`.
        retention: retained fraction, in (0, 1).
        settings: further fields as text, as ``compress run --set`` takes them.
        map: by which tokens are ranked, where the method reads density.
        saliency: whether attention in the encoder is measured.
        rpm: fields of RPM as text, which then merges patches before the encoder's first block; it changes no count of
            tokens. None for no RPM. On families with `Family.merges_patches`.

    Raises:
        ConfigError: the method, a field or a value is not allowed, or the method cannot be served.
    """

    method: str
    retention: float
    settings: Mapping[str, str] = field(default_factory=dict)
    map: MapChoice = "auto"
    saliency: Saliency = "auto"
    rpm: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_retention(self.retention)
        if self.map not in MAP_CHOICES:
            raise ConfigError(f"unknown map {self.map!r}; choose from {', '.join(MAP_CHOICES)}")
        if self.saliency not in get_args(Saliency):
            raise ConfigError(f"saliency is {self.saliency!r}; choose from {', '.join(get_args(Saliency))}")
        check_served(self.method, self._before_llm)
        _ = self.compressor

    @staticmethod
    def parse(given: object, pruning_rate: float | None) -> ServedMethod:
        """Parse the settings of an engine.

        Args:
            given: value of the key ``compress``: ``method`` and, as needed, ``settings`` (fields and values), ``map``
                and ``saliency``.
            pruning_rate: ``--video-pruning-rate``, 1 less the retention.

        Raises:
            ConfigError: see the class; or the key or the rate is missing or of another form.
        """
        if not isinstance(given, Mapping) or not isinstance(given.get("method"), str):
            raise ConfigError(
                f"--hf-overrides has {KEY!r}: {given!r}; give an object with a method, for example "
                f'{{"{KEY}": {{"method": "infomerge"}}}}'
            )
        if unknown := [repr(name) for name in given if name not in _FIELDS]:
            raise ConfigError(
                f"--hf-overrides has {', '.join(unknown)} under {KEY!r}; allowed are {', '.join(_FIELDS)}; "
                "fields of the method go into settings"
            )
        if not pruning_rate:
            raise ConfigError(
                "--video-pruning-rate is missing or 0, so that nothing would be compressed; give 1 less the retained "
                "fraction, for example 0.9 to keep 10 % of the tokens"
            )
        return ServedMethod(
            method=given["method"],
            retention=round(1 - pruning_rate, _DIGITS),
            settings={} if given.get("settings") is None else _fields("settings", given["settings"]),
            map=given.get("map", "auto"),
            saliency=given.get("saliency", "auto"),
            rpm=None if given.get("rpm") is None else _fields("rpm", given["rpm"]),
        )

    @property
    def pruning_rate(self) -> float:
        """What ``--video-pruning-rate`` must be."""
        return round(1 - self.retention, _DIGITS)

    def overrides(self) -> dict[str, Any]:
        """Return the value of the key ``compress``, without what is at its default."""
        written: dict[str, Any] = {"method": self.method}
        if self.settings:
            written["settings"] = dict(self.settings)
        if self.rpm is not None:
            written["rpm"] = dict(self.rpm)
        for name, default in (("map", "auto"), ("saliency", "auto")):
            if getattr(self, name) != default:
                written[name] = getattr(self, name)
        return written

    @cached_property
    def _before_llm(self) -> Any:
        return build(self.method, retention=self.retention, settings=self.settings)

    @cached_property
    def compressor(self) -> Any:
        """The method itself, after RPM if there is one."""
        if self.rpm is None:
            return self._before_llm
        return Pipeline(build("rpm", settings=self.rpm), self._before_llm)

    @cached_property
    def key(self) -> str:
        """Text that differs where results may differ, for keys of caches."""
        return json.dumps(
            {
                "compressor": repr(self.compressor),
                "method": self.method,
                "map": self.map,
                "saliency": self.saliency,
            },
            sort_keys=True,
        )

    def count(self, frames: int, per_frame: int) -> int:
        """Count the tokens that leave of T frames of N tokens; known before anything is encoded.

        Raises:
            ConfigError: none would leave.
        """
        return count_tokens(self.retention, frames * per_frame)


def check_served(name: str, compressor: object) -> None:
    """Check that a method can run in a server, whose number of tokens must be known before it has seen any.

    Raises:
        ConfigError: it cannot; the message says why.
    """
    if reason := _refusal(name, compressor):
        raise ConfigError(f"{name} cannot be served: {reason}; {_INSTEAD}")


_INSTEAD: Final = "use it by attach() in transformers, or choose a method before the language model, such as infomerge"


def _refusal(name: str, compressor: object) -> str:
    """Return why a method cannot be served; empty if it can."""
    if isinstance(compressor, InsideLLM):
        return "it shortens the prompt between two decoder layers, and vLLM's paged cache has one length for all layers"
    if isinstance(compressor, AtDecoding):
        return "it chooses cached tokens at every decoding step, which vLLM's attention kernels cannot"
    if isinstance(compressor, InsideEncoder | BeforeEncoder):
        return "it merges patches inside or before the vision encoder, which vLLM runs as a whole"
    if not isinstance(compressor, BeforeLLM):
        return "it has no stage before the language model"
    if getattr(compressor, "refill", True) is False:
        return "without refill its count of tokens depends on the video (leave refill out)"
    if getattr(compressor, "budget", "exact") in ("paper", "fastvid"):
        return "its count of tokens is known beforehand only with budget=exact"
    if getattr(compressor, "fidelity", "fixed") != "fixed":
        return "the count of tokens of its released code depends on the video (leave fidelity out)"
    if not find(name).budget.startswith("exact"):
        return f"its count of tokens is not known beforehand ({find(name).budget})"
    return ""


def _fields(name: str, given: object) -> dict[str, str]:
    """Write fields and values as text.

    Raises:
        ConfigError: they are no object.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f'{name} is {given!r}; give an object of fields, for example {{"tau": 0.2}}')
    return {str(field): _as_text(value) for field, value in given.items()}


def _as_text(value: object) -> str:
    """Write a JSON value as `compress.settings.configure` reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return str(value)
