"""Output folder of a batch below a URL: records, run record, and manifests in parts, each written whole or not at all.

An object store appends to nothing and locks nothing. What a run reports is written every minute as a further part of
the manifest, under a name that no other run uses; what is not written when a run is killed is found in the records.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from codecmeta.batch.inputs import absolute_path
from codecmeta.batch.manifest import MANIFESTS, encode_line
from codecmeta.batch.outcome import Outcome, Stamp
from codecmeta.batch.output_folder import RUN_RECORD, OutputFolder, check_options, read_run
from codecmeta.batch.record_listing import RecordListing
from codecmeta.batch.shards import Shard
from codecmeta.batch.summary import SUMMARIES
from codecmeta.errors import ConflictError, OutputError, SourceError, UsageError
from codecmeta.storage.address import is_url
from codecmeta.storage.object_store import ObjectState
from codecmeta.storage.objects import read_object, set_object, stat_object, write_object
from codecmeta.storage.stores import open_store

_PART_LINES, _PART_SECONDS = 2000, 60.0
_MOST_PART, _TRIES = 1 << 30, 10
CONNECTIONS = 8
"""Objects that are read, or removed, at a time."""


class RemoteOutput(OutputFolder):
    """Output folder below a URL that is ready to be written.

    Attributes:
        path: local copy of its manifests and run record.
        url: of the folder.
    """

    def __init__(self, url: str, copy: RemoteCopy, run: Mapping[str, Any], shard: Shard) -> None:
        super().__init__(copy.path, run, shard, place=url)
        self.url = url
        self._copy = copy
        self._lines: list[bytes] = []
        self._written = time.monotonic()
        began = datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%f")
        self._name = f"manifest-{began}-{secrets.token_hex(4)}"
        self._parts = 0

    def _stamp(self, source: str, state: tuple[int, int] | None, meta: str, place: str) -> Stamp | None:
        found = self._copy.records.find(place)
        if found is None or (state is None and is_url(source)):
            return None
        return Stamp.join(state or Stamp.of_file(source), found)

    def append(self, place: str | None, outcome: Outcome) -> None:
        """Report an outcome, see `OutputFolder`; it is written with others, after a minute at the latest."""
        facts = outcome.manifest_facts() | {"run": self._digest, "path": absolute_path(outcome.source)}
        self._lines.append(encode_line(place, facts))
        if len(self._lines) >= _PART_LINES or time.monotonic() - self._written > _PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the lines of outcomes that are not written yet.

        Raises:
            OutputError: they cannot be written.
        """
        self._written = time.monotonic()
        if self._lines:
            with _as_output_error(self.url):
                write_object(f"{self.url}/{self._name}-{self._parts:06d}.jsonl", b"".join(self._lines), None)
            self._parts += 1
            self._lines.clear()

    def has(self, name: str) -> bool:
        """Return whether an object of this name was there when the run began."""
        return self._copy.records.find(name) is not None

    def sweep(self, meta: str) -> None:
        """Do nothing: writers that are killed leave nothing."""

    def write_summary(self, name: str, content: bytes) -> None:
        """Write a summary, see `OutputFolder`."""
        with _as_output_error(self.url):
            set_object(f"{self.url}/{name}", content)


class RemoteCopy:
    """Local copy of a remote folder's manifests, summaries and run record, and a list of its records.

    Attributes:
        path: folder of the copies.
        records: what else is there, by its place.
        run: properties of the run record that was copied; None without one.
    """

    def __init__(self, url: str, path: Path) -> None:
        store, key = open_store(url)
        prefix = f"{key}/" if key else ""
        self.path = path
        self.records = RecordListing()
        self.run: ObjectState | None = None
        copied: list[str] = []
        for one in store.list(prefix):
            name = one.key[len(prefix) :]
            if "/" not in name and (name == RUN_RECORD or fnmatch(name, MANIFESTS) or fnmatch(name, SUMMARIES)):
                copied.append(name)
                self.run = one.state if name == RUN_RECORD else self.run
            else:
                self.records.add(name, one.state.size, one.state.mtime_ns)

        def copy(name: str) -> None:
            (path / name).write_bytes(read_object(f"{url}/{name}", most_bytes=_MOST_PART))

        # parts of manifests may be thousands
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(copy, copied):
                pass


@contextmanager
def copy_folder(url: str) -> Iterator[RemoteCopy]:
    """Copy what a remote folder says of its records to a temporary folder.

    Raises:
        SourceError: it cannot be read.
        UsageError: there is no store for the URL.
    """
    with tempfile.TemporaryDirectory(prefix="codecmeta-") as path:
        yield RemoteCopy(url, Path(path))


@contextmanager
def open_remote_output(url: str, *, run: Mapping[str, Any], overwrite: bool, shard: Shard) -> Iterator[RemoteOutput]:
    """Prepare a folder below a URL for writing; see `open_output`.

    Raises:
        UsageError: its records have other options, or there is no store for the URL.
        OutputError: it cannot be read or written.
    """
    with ExitStack() as stack:
        with _as_output_error(url):
            copy = stack.enter_context(copy_folder(url))
        _claim(url, copy, run, overwrite=overwrite)
        folder = RemoteOutput(url, copy, run, shard)
        folder._manifest.read()
        try:
            yield folder
        finally:
            folder._manifest.close()
            folder.flush()


def _claim(url: str, copy: RemoteCopy, run: Mapping[str, Any], *, overwrite: bool) -> None:
    """Write the run record, if there is none or another version's; a run that was faster is respected."""
    content = (json.dumps(run, indent=1, sort_keys=True) + "\n").encode()
    place, local = f"{url}/{RUN_RECORD}", copy.path / RUN_RECORD
    with _as_output_error(url):
        for _ in range(_TRIES):
            there = read_run(copy.path)
            if there == run:
                return
            if not overwrite:
                check_options(url, there, run)
            try:
                copy.run = write_object(place, content, copy.run)
                local.write_bytes(content)
                return
            except ConflictError:
                copy.run = stat_object(place)
                local.write_bytes(b"" if copy.run is None else read_object(place, most_bytes=_MOST_PART))
    raise UsageError(f"other runs write to {url} at the same time; use another --out, or wait")


@contextmanager
def _as_output_error(url: str) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise OutputError(None, f"output folder {url}: {error}") from error
