"""Fields of a method from text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from compress.errors import ConfigError
from compress.metom.btm import BTM
from compress.settings import configure, list_settings, parse_assignments


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: float = 0.25
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.share > 0.5:
            raise ConfigError("share and count do not go together")


@dataclass(frozen=True, kw_only=True)
class Outer:
    retention: float = 0.3
    layers: tuple[int, ...] = (13, 14)
    mode: Literal["mean", "max"] = "mean"
    window: Literal[4, 8] = 4
    refill: bool = False
    inner: Inner = field(default_factory=Inner)


def test_every_type_is_read() -> None:
    changed = configure(
        Outer(),
        {
            "retention": "1e-1",
            "layers": "3,5,8",
            "mode": "max",
            "window": "8",
            "refill": "yes",
            "inner.share": "0.5",
            "inner.count": "7",
        },
    )
    assert changed == Outer(
        retention=0.1, layers=(3, 5, 8), mode="max", window=8, refill=True, inner=Inner(share=0.5, count=7)
    )
    assert configure(changed, {"inner.count": "none"}).inner == Inner(share=0.5)
    assert configure(changed, {}) == changed


@pytest.mark.parametrize("method", [Outer(), BTM(), BTM(window=2, refill=True)])
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
        ("inner.count", "1.5", "int|none"),
    ],
)
def test_text_of_another_type_is_refused(name: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configure(Outer(), {name: text})
    assert name in str(refused.value)
    assert allowed in str(refused.value)


def test_unknown_fields_are_refused_with_those_there_are() -> None:
    for name in ("tau", "inner", "inner.tau", "retention.x"):
        with pytest.raises(ConfigError, match=r"no field .*inner\.share"):
            configure(Outer(), {name: "1"})


def test_values_are_checked_together() -> None:
    both = {"inner.share": "0.9", "inner.count": "3"}
    for name in both:
        configure(Outer(), {name: both[name]})
    with pytest.raises(ConfigError, match="do not go together"):
        configure(Outer(), both)


def test_assignments() -> None:
    assert parse_assignments(["a.b=1", "c = x=y "]) == {"a.b": "1", "c": "x=y"}
    for texts in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            parse_assignments(texts)
