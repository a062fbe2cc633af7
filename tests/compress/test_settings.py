"""Fields of a method from text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.metom import BTM, MeToM
from compress.settings import configure, list_settings, parse_assignments


@dataclass(frozen=True, kw_only=True)
class Example:
    retention: float = 0.3
    layers: tuple[int, ...] = (13, 14)
    mode: Literal["mean", "max"] = "mean"
    window: Literal[4, 8] = 4
    refill: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.refill:
            raise ConfigError("count and refill do not go together")


def test_every_type_is_read() -> None:
    text = {"retention": "1e-1", "layers": "3,5,8", "mode": "max", "window": "8", "count": "7"}
    changed = configure(Example(), text)
    assert changed == Example(retention=0.1, layers=(3, 5, 8), mode="max", window=8, count=7)
    assert configure(changed, {"count": "none", "refill": "yes"}).refill
    assert configure(changed, {}) == changed


@pytest.mark.parametrize("method", [Example(), BTM(), BTM(window=2, refill=True), MeToM(), InfoMerge(rho=0.2)])
def test_listed_values_set_what_they_say(method: object) -> None:
    listed = {setting.name: setting.value for setting in list_settings(method)}
    assert configure(type(method)(), listed) == method


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("retention", "much", "float"),
        ("layers", "1,x", "int,..."),
        ("mode", "min", "mean|max"),
        ("window", "5", "4|8"),
        ("refill", "perhaps", "yes|no"),
        ("count", "1.5", "int|none"),
    ],
)
def test_text_of_another_type_is_refused(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configure(Example(), {name: text})
    assert name in str(refused.value)
    assert allowed in str(refused.value)


def test_unknown_fields_are_refused_with_those_there_are() -> None:
    for name in ("tau", "", "retention.x"):
        with pytest.raises(ConfigError, match=r"no field .*retention, layers"):
            configure(Example(), {name: "1"})


def test_values_are_checked_together() -> None:
    both = {"count": "3", "refill": "yes"}
    for name in both:
        configure(Example(), {name: both[name]})
    with pytest.raises(ConfigError, match="do not go together"):
        configure(Example(), both)


def test_assignments() -> None:
    assert parse_assignments(["a.b=1", "c = x=y "]) == {"a.b": "1", "c": "x=y"}
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            parse_assignments(texts)
