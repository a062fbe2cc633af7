"""Methods by name: what each does, what it needs and where it comes from. Classes are imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from compress.errors import ConfigError
from compress.methods.entry import STAGES, Method, Stage
from compress.methods.inner import INNER
from compress.methods.outer import OUTER

__all__ = ["METHODS", "STAGES", "Method", "Stage", "build", "find", "retained_fraction"]

METHODS: Final[Mapping[str, Method]] = {method.name: method for method in (*OUTER, *INNER)}


def find(name: str) -> Method:
    """Return the entry of this name.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def build(name: str, *, retention: float | None = None, settings: Mapping[str, str] | None = None) -> Any:
    """Build a method by name, with fields from text.

    Args:
        name: a key of `METHODS`.
        retention: retained fraction; RPM takes it as ``target_keep``, FlashVID's inner cut as ``R``, MATM merges the
            rest. None for the default.
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
    elif name == "flashvid-inner":
        built = method(R=retention)
    elif name == "matm":
        from compress.budget import check_retention

        check_retention(retention)
        built = method(merge_percent=100 * (1 - retention))
    else:
        built = method(retention=retention)
    return configure(built, settings or {})


def retained_fraction(method: Any) -> float:
    """Return the share of the tokens that a method is to keep: its retention, or what its only stage keeps.

    1 for RPM with a threshold, which decides by itself.
    """
    if hasattr(method, "share"):
        return float(method.share)
    if hasattr(method, "retention"):
        return float(method.retention)
    if hasattr(method, "merge_percent"):
        return 1 - float(method.merge_percent) / 100
    if hasattr(method, "R"):
        return float(method.R)
    return float(method.nominal_keep)
