"""Output folder of a batch: the run that it belongs to, its manifest, and remains of killed runs."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from codecmeta.batch.inputs import absolute_path
from codecmeta.batch.manifest import Manifest
from codecmeta.batch.outcome import Outcome, Stamp, outcome_of_line
from codecmeta.batch.shards import Shard
from codecmeta.errors import OutputError, SourceCode, SourceError, UsageError
from codecmeta.record.atomic_file import TEMPORARY_FILES, replace_file
from codecmeta.record.tar_shard import Location, ShardFolder
from codecmeta.storage.address import check_output, check_slashes, is_url
from codecmeta.storage.stores import open_store

RUN_RECORD = "run.json"
STOPS: dict[int, SourceCode] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EFBIG: "file_too_large",
    errno.EIO: "io_error",
    errno.EROFS: "read_only",
}
"""Write errors that all further videos would meet, too, and their codes."""

_STALE_SECONDS = 3600.0
_LOCK_TRIES = 40
_MAX_RECORD = 1 << 20


def check_place(out: str) -> Path | str:
    """Return the folder given by `--out`, or its URL.

    Raises:
        UsageError: it is empty, a URL that cannot be written or lacks a slash, or the package that reaches it is not
            installed.
    """
    if not out:
        raise UsageError("the output folder is empty; for the current folder write .")
    if not is_url(out):
        check_slashes(out)
        return Path(out)
    url = check_output(out)
    open_store(url)
    return url


class OutputFolder:
    """Output folder that is ready to be written.

    Attributes:
        path: the folder.
        part: of the inputs whose manifest is written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], shard: Shard, *, place: Path | str | None = None) -> None:
        self.path = path
        self._run = run
        self._digest = run_digest(run)
        self.part = shard
        self._manifest = Manifest(path, shard)
        self._shards = ShardFolder(path if place is None else place)
        self._swept: set[str] = set()

    def find_kept(
        self, source: str, path: str, meta: str, place: str, *, state: tuple[int, int] | None = None
    ) -> Outcome | None:
        """Find the outcome of an earlier run with the same options, if video and record have not changed since.

        Args:
            source: the video, as given.
            path: its absolute path.
            meta: the record's file.
            place: of the record, below this folder.
            state: length and modification time of the video, if a listing gave them.
        """
        for line in self._manifest.find(place):
            if line.get("run") != self._digest or line.get("status") not in ("done", "kept"):
                continue
            try:
                location = Location.of_line(line)
                if location is None:
                    stamp = self._stamp(source, state, meta, place)
                elif self._shards.holds(location):
                    stamp = Stamp.join(state or Stamp.of_file(source), (line["meta_bytes"], line["meta_mtime_ns"]))
                else:
                    continue
                # a line of another manifest may know where the record has gone
                if stamp is None or line["path"] != path or not stamp.agrees_with(line):
                    continue
                return outcome_of_line(line, source=source, meta=meta, stamp=stamp)
            except (OSError, SourceError, KeyError, TypeError, ValueError):
                continue
        return None

    def _stamp(self, source: str, state: tuple[int, int] | None, meta: str, place: str) -> Stamp | None:
        """Return the stamp of a video and its record as they are; None where only their worker can find out."""
        if state is None:
            return None if is_url(source) else Stamp.of(source, meta)
        status = os.stat(meta)  # noqa: PTH116 - of a million files
        return Stamp.join(state, (status.st_size, status.st_mtime_ns))

    def append(self, place: str | None, outcome: Outcome) -> None:
        """Append an outcome to the manifest; without a place if it says nothing about the record there.

        Raises:
            OutputError: it cannot be written.
        """
        facts = outcome.manifest_facts() | {"run": self._digest, "path": absolute_path(outcome.source)}
        with as_output_error(self.path):
            self._manifest.append(place, facts)
            if not (self.path / RUN_RECORD).exists():
                _write_run(self.path, self._run)

    @contextmanager
    def claim_packing(self) -> Iterator[None]:
        """Keep other runs from packing the same part of this folder.

        Raises:
            UsageError: one is in progress.
        """
        name = self.part.file_name("manifest", ".jsonl")
        with as_output_error(self.path):
            (self.path / name).touch()
        with _open_lock(self.path / name) as lock:
            if not _lock(lock, exclusive=True):
                raise UsageError(f"another run packs part {self.part} of {self.path}; wait for its end")
            yield

    @contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Wait until no other run writes what all runs of this folder share."""
        with _open_lock(self.path / RUN_RECORD) as lock:
            if lock is not None:
                with suppress(ImportError, OSError):
                    import fcntl

                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def write_summary(self, name: str, content: bytes) -> None:
        """Write a summary.

        Raises:
            OSError: it cannot be written.
        """
        with replace_file(self.path / name) as file:
            file.write(content)

    def sweep(self, meta: str) -> None:
        """Remove partial files of killed runs in the folder of a record, once per run."""
        folder = meta[: meta.rfind("/") + 1]
        if folder not in self._swept:
            self._swept.add(folder)
            # what cannot be examined is reported when its job is done
            with suppress(OSError, ValueError):
                for name in fnmatch.filter(os.listdir(folder or "."), TEMPORARY_FILES):  # noqa: PTH208 - thousands
                    path = Path(folder, name)
                    if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                        path.unlink(missing_ok=True)


@contextmanager
def open_output(
    path: Path, *, run: Mapping[str, Any], overwrite: bool, shard: Shard | None = None
) -> Iterator[OutputFolder]:
    """Create a folder, check that it can be written, and that it holds records of one set of options.

    Args:
        path: the folder.
        run: `options` and `versions` of this run, as JSON values.
        overwrite: take the folder over from a run with other options.
        shard: whose manifest is written, None without shards.

    Raises:
        UsageError: its records have other options, or a run with others is in progress.
        OutputError: it cannot be created or written.
    """
    with as_output_error(path):
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0")
    with _open_lock(path) as lock:
        _claim(path, lock, run, overwrite=overwrite)
        folder = OutputFolder(path, run, shard or Shard())
        with as_output_error(path):
            folder._manifest.read()
        try:
            yield folder
        finally:
            folder._manifest.close()


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Raise an OSError as the OutputError of a folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno, f"output folder {path}: {error.strerror or error}") from error


def _claim(path: Path, lock: int | None, run: Mapping[str, Any], *, overwrite: bool) -> None:
    """Share the folder with runs of the same options, and with no other."""
    for _ in range(_LOCK_TRIES):
        _lock(lock, exclusive=False)
        there = read_run(path)
        if there == run:
            return
        if not overwrite:
            check_options(path, there, run)
        _unlock(lock)
        if _lock(lock, exclusive=True):
            with as_output_error(path):
                _write_run(path, run)
            _lock(lock, exclusive=False)
            return
        time.sleep(0.05)
    raise UsageError(f"another run with other options or versions is in progress in {path}; use another --out, or wait")


def check_options(path: Path | str, there: Mapping[str, Any] | None, run: Mapping[str, Any]) -> None:
    """Refuse a folder whose records have other options.

    Raises:
        UsageError: they have.
    """
    before = (there or {}).get("options")
    if isinstance(before, dict):
        now = run["options"]
        other = [
            f"{name} {before[name]!r}, now {now[name]!r}" for name in now if before.get(name, now[name]) != now[name]
        ]
        if other:
            raise UsageError(
                f"{path} holds records of other options ({'; '.join(other)}); use another --out, or --overwrite"
            )


def run_digest(run: Mapping[str, Any]) -> str:
    """Return a short identifier that differs whenever options or versions do."""
    return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]


def read_run(path: Path) -> dict[str, Any] | None:
    """Read options and versions of the run that a folder belongs to; return None where none is recorded."""
    with suppress(OSError, ValueError, RecursionError):
        with (path / RUN_RECORD).open("rb") as file:
            found = json.loads(file.read(_MAX_RECORD))
        return found if isinstance(found, dict) else None
    return None


def _write_run(path: Path, run: Mapping[str, Any]) -> None:
    with replace_file(path / RUN_RECORD) as file:
        file.write((json.dumps(run, indent=1, sort_keys=True) + "\n").encode())


@contextmanager
def _open_lock(path: Path) -> Iterator[int | None]:
    """Open a descriptor for locking a folder or a file; yield None where the system has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(folder: int | None, *, exclusive: bool) -> bool:
    """Take or change a lock; return False if another process holds it. Where locks are unsupported, all succeed."""
    if folder is None:
        return True
    try:
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def _unlock(folder: int | None) -> None:
    if folder is None:
        return
    with suppress(ImportError, OSError):
        import fcntl

        fcntl.flock(folder, fcntl.LOCK_UN)
