"""Index of packed records: a Parquet table of the location of each record in its shard, and of its video."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from codecmeta.errors import UsageError
from codecmeta.record.tar_shard import Location

_TEXTS = ("place", "member", "codec", "residual", "path", "shard")
_NUMBERS = ("offset", "bytes", "frames", "packets", "gops", "source_bytes")
_GROUP = 20_000
"""Rows that are written at a time."""


def require_pyarrow() -> None:
    """Check that an index can be written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError("packing needs pyarrow: pip install 'codecmeta[parquet]'") from error


class IndexWriter:
    """Index that is being written; a million rows need little memory."""

    def __init__(self, file: Any) -> None:
        import pyarrow
        from pyarrow import parquet

        fields = [(name, pyarrow.string()) for name in _TEXTS] + [(name, pyarrow.int64()) for name in _NUMBERS]
        self._schema = pyarrow.schema([*fields, ("duration_s", pyarrow.float64())])
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, line: Mapping[str, Any], location: Location) -> None:
        """Add a row.

        Args:
            line: the record's line of a manifest.
            location: where it is.
        """
        row: dict[str, Any] = {name: line.get(name) for name in self._schema.names}
        row |= {name: getattr(location, name) for name in ("shard", "member", "offset", "bytes")}
        # names of files need not be UTF-8
        row |= {name: os.fsencode(row[name]).decode("utf-8", "backslashreplace") for name in _TEXTS if row[name]}
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []

    def abandon(self) -> None:
        """End without an index; otherwise pyarrow tries to write to a file that is gone."""
        with suppress(Exception):
            self._writer.close()
        self._writer.is_open = False

    def close(self) -> None:
        """Write the rows that remain."""
        if self._rows:
            self._flush()
        self._writer.close()


def packed_location(line: Mapping[str, Any]) -> Location | None:
    """Return the location in a line of a manifest, None where the line has none."""
    try:
        return Location.of_line(line) if line.get("status") in ("done", "kept") else None
    except (KeyError, TypeError, ValueError):
        return None
