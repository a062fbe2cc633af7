"""Target files, checked for being writable before the work whose result they will hold."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from compress.errors import ConfigError, OutputError

PICTURES: Final = (".png", ".pdf", ".svg")
"""Endings of pictures; each is its format."""


RECORDS: Final = (".npz", ".tar", ".parquet")
"""Endings of what commands read."""


def check_target(option: str, path: Path, *, endings: Sequence[str] = ()) -> None:
    """Make the folder of a file, and raise unless the file can be written there.

    Args:
        option: the option that names the file, for the message.
        path: the file.
        endings: allowed endings; none for any.

    Raises:
        ConfigError: it has another ending, or that of a record, or is a folder or a device.
        OutputError: its folder cannot be made or written.
    """
    given = f"{option} is {str(path)!r}"
    if path.is_dir():
        raise ConfigError(f"{given}, a folder; name a file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{given}, which exists and is not a regular file; name another")
    if path.suffix.lower() in RECORDS:
        raise ConfigError(f"{given}, the name of a record or of a shard of them, which would be replaced; name another")
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{given}; its ending is its format, one of {', '.join(endings)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OutputError(
            f"{given}; the folder {str(path.parent)!r} cannot be written: {error.strerror or error}"
        ) from error
