"""Records that commands read: .npz files below a folder, and records of tar shards that `codecmeta` packed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypeAlias

from codecmeta import CodecMetaError, MetaDataset, VideoMeta, load, open_dataset
from compress.errors import CompressError, ConfigError

RecordSource: TypeAlias = "Path | MetaDataset"
"""File of a record, or a collection of this record only, which is in a shard."""


def find_metas(meta: str | os.PathLike[str]) -> list[tuple[str, RecordSource]]:
    """Find all records of a folder, sorted, or the one that is given; links to folders are not followed.

    Args:
        meta: a folder of .npz files, or of tar shards of them, or one file, shard or index.

    Returns:
        (name, source): the name is the path below the folder without `.npz`.

    Raises:
        ConfigError: no record is found, or shards or their index cannot be read.
    """
    root = Path(meta)
    if root.is_file() and root.suffix not in (".tar", ".parquet"):
        return [(root.name.removesuffix(".npz"), root)]
    closed: list[OSError] = []
    found = [
        Path(folder, name)
        for folder, _, names in os.walk(root, onerror=closed.append)
        for name in names
        if name.endswith(".npz") and not name.startswith(".")
    ]
    if root.is_dir():
        # reported by the run, like a file that cannot be read
        found += [Path(error.filename) for error in closed]
    # a record that waits for its shard, or was extracted again, is a file
    named: dict[str, RecordSource] = _find_packed(root)
    named |= {path.relative_to(root).as_posix().removesuffix(".npz"): path for path in found}
    if not named:
        kind = "there is no .npz in it" if root.is_dir() else "it does not exist"
        raise ConfigError(f"nothing to do in {root}: {kind}; run: codecmeta extract VIDEOS --out {root}")
    return sorted(named.items(), key=lambda pair: os.fsencode(pair[0]))


def _find_packed(root: Path) -> dict[str, RecordSource]:
    if root.is_dir() and next(root.glob("*.tar"), None) is None:
        return {}
    if not root.exists():
        return {}
    try:
        dataset = open_dataset(root)
    except (OSError, CodecMetaError) as error:
        raise ConfigError(f"{root} cannot be read: {error}") from error
    return {
        entry.place.removesuffix(".npz"): dataset[number : number + 1] for number, entry in enumerate(dataset.entries)
    }


def load_record(source: RecordSource) -> VideoMeta:
    """Read a record.

    Raises:
        OSError, CodecMetaError: it cannot be read.
    """
    return load(source) if isinstance(source, Path) else source[0]


def digest_record(source: RecordSource) -> str:
    """Return the SHA-256 of a record's bytes.

    Raises:
        CompressError: it is not a regular file.
        OSError, CodecMetaError: it cannot be read.
    """
    if not isinstance(source, Path):
        return hashlib.sha256(source.read_bytes(0)).hexdigest()
    if source.is_dir():
        raise CompressError(f"{source} is a folder that cannot be listed")
    if source.exists() and not source.is_file():
        # opening a pipe would wait for a writer
        raise CompressError(f"{source} is not a regular file")
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
