"""Errors of compress.

CompressError
├── ConfigError    a field or combination of options is not allowed   (also a ValueError)
├── ShapeError     tensors or grids do not fit together               (also a ValueError)
├── SignalError    a video's metadata lacks what the method needs
└── OutputError    the output folder cannot be written                (also an OSError)
"""

from __future__ import annotations


class CompressError(Exception):
    """Base of every error that compress raises on purpose."""


class ConfigError(CompressError, ValueError):
    """An option is not allowed; the message says what was given and what is allowed."""


class ShapeError(CompressError, ValueError):
    """Tensors, grids or plans do not fit together."""


class SignalError(CompressError):
    """The metadata of a video lacks a signal that the method needs; the message says how to get it."""


class OutputError(CompressError, OSError):
    """The output folder cannot be written; the message names it."""


def on_one_line(error: Exception) -> str:
    """Return the text of another library's error on one line, to be part of a message."""
    return " ".join(str(error).split())
