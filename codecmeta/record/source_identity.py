"""Source file identity: the properties by which a record is matched to its file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

_DIGEST_BYTES = 1 << 20


def identify_source(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return name, length, modification time, and a digest of the first and last MiB of a file.

    Returns:
        `name`, `bytes`, `mtime_ns` and `sha256`, the keys of `info["source"]`.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256(file.read(_DIGEST_BYTES))
        if status.st_size > _DIGEST_BYTES:
            file.seek(max(_DIGEST_BYTES, status.st_size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    return {
        "name": Path(path).name,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "sha256": digest.hexdigest(),
    }
