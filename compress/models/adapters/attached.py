"""Hooks that belong to one model."""

from __future__ import annotations

from typing import NoReturn

from compress.errors import ConfigError


class Attached:
    """Owner of the hooks on a model; it refuses copies, since a copy of the model would share it."""

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise ConfigError("a model with a compressor attached cannot be copied; leave the `with` block first")

    def __reduce__(self) -> NoReturn:
        raise ConfigError("a model with a compressor attached cannot be pickled; leave the `with` block first")
