"""Hooks that belong to one model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NoReturn

from compress.errors import ConfigError

Method = Callable[..., Any]


def replace_method(hooks: ExitStack, owner: Any, name: str, make: Callable[[Method], Method]) -> None:
    """Replace a method of one object; leaving the stack restores it.

    Args:
        hooks: the stack.
        owner: of the method.
        name: of the method.
        make: gives what is called instead, from what was called.
    """
    held = vars(owner).get(name)
    original = getattr(owner, name)
    setattr(owner, name, functools.wraps(original)(make(original)))
    if held is None:
        hooks.callback(delattr, owner, name)
    else:
        hooks.callback(setattr, owner, name, held)


class Attached:
    """Owner of the hooks on a model; it refuses copies, since a copy of the model would share it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise ConfigError("a model with a compressor attached cannot be copied; leave the `with` block first")

    def __reduce__(self) -> NoReturn:
        raise ConfigError("a model with a compressor attached cannot be pickled; leave the `with` block first")
