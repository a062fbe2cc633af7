"""Schema of the facts in `info` of a VideoMeta."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_WHOLE = 2**63
"""Bound of whole numbers, so that they fit the arrays of the record."""
_MAX_TIME = 2**96
"""Bound of file times in nanoseconds: file systems store years that 63 bits do not reach."""

_TEXT, _WHOLE, _LIST, _OBJECT = (str,), (int,), (list,), (dict,)
_NUMBER = (int, float)
_NONE = (type(None),)
_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "source": {"name": _TEXT, "bytes": _WHOLE, "mtime_ns": _WHOLE, "sha256": _TEXT},
    "stream": {
        "index": _WHOLE,
        "container": _TEXT,
        "codec": _TEXT,
        "profile": _TEXT + _NONE,
        "width": _WHOLE,
        "height": _WHOLE,
        "pixel_format": _TEXT + _NONE,
        "bit_depth": _WHOLE + _NONE,
        "chroma": _TEXT,
        "fps": _NUMBER + _NONE,
        "time_base": _LIST,
        "duration_s": _NUMBER + _NONE,
        "orientation": _LIST,
        "sar": _LIST + _NONE,
        "display_aspect": _LIST,
        "packets": _WHOLE,
    },
    "verdict": {
        "state": _TEXT,
        "evidence": _TEXT,
        "checked": _WHOLE,
        "packets": _WHOLE,
        "gops": _WHOLE,
        "frames": _WHOLE,
        "leading": _WHOLE,
        "hidden": _WHOLE,
        "field_pairs": _WHOLE,
        "corrupt_packets": _WHOLE,
        "unreadable_packets": _WHOLE,
        "pictures_decoded": _WHOLE,
        "decode_errors": _WHOLE,
        "corrupt_pictures": _WHOLE,
        "missing_frames": _WHOLE,
    },
    "extraction": {
        "version": _TEXT,
        "libraries": _OBJECT,
        "options": _OBJECT,
        "digest": _TEXT,
        "frames": _WHOLE,
        "sampling": _TEXT + _LIST,
        "block": _WHOLE,
        "pixels": _WHOLE + _NONE,
        "warnings": _LIST,
    },
}
_REQUIRED = (
    ("source", "name"),
    ("stream", "width"),
    ("stream", "height"),
    ("stream", "orientation"),
    ("stream", "time_base"),
    ("extraction", "block"),
)
_NAMES = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object", type(None): "null"}


def check_info(info: Mapping[str, Any]) -> None:
    """Check the types of all facts that have a meaning, and that those which the arrays need are present.

    Raises:
        KeyError: a section or a fact is missing.
        TypeError: a fact has another type.
        ValueError: a number is not finite, or too large.
    """
    for section, kinds in _KINDS.items():
        facts = info[section]
        _check_kind(section, facts, _OBJECT)
        for name, allowed in kinds.items():
            if name in facts:
                _check_kind(f"{section}.{name}", facts[name], allowed)
    for section, name in _REQUIRED:
        if name not in info[section]:
            raise KeyError(f"{section}.{name}")
    for name in ("time_base", "sar", "display_aspect"):
        pair = info["stream"].get(name)
        if pair is None:
            continue
        if len(pair) != 2:
            raise ValueError(f"stream.{name} must be two numbers")
        for number in pair:
            _check_kind(f"stream.{name}", number, _WHOLE)
    for text in info["extraction"].get("warnings", ()):
        _check_kind("extraction.warnings", text, _TEXT)
    _check_kind("signals", info["signals"], _OBJECT)
    for name, signal in info["signals"].items():
        _check_kind(f"signals.{name}", signal, _OBJECT)
        for word in ("source", "absent"):
            if word in signal:
                _check_kind(f"signals.{name}.{word}", signal[word], _TEXT)


def _check_kind(name: str, value: Any, allowed: tuple[type, ...]) -> None:
    # bool is a subclass of int
    if not isinstance(value, allowed) or isinstance(value, bool):
        given = _NAMES.get(type(value), "a truth value")
        names = [_NAMES[kind] for kind in allowed if kind is not int or float not in allowed]
        raise TypeError(f"{name} is {given}; it must be {' or '.join(names)}")
    if isinstance(value, int) and abs(value) >= (_MAX_TIME if name == "source.mtime_ns" else MAX_WHOLE):
        raise ValueError(f"{name} is too large")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}; it must be finite")
