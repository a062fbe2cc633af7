"""Outcome of one video of a batch."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from codecmeta.picture_folder import identify
from codecmeta.record.tar_shard import Location
from codecmeta.storage.address import is_url
from codecmeta.storage.objects import stat_object

Status = Literal["done", "kept", "failed"]
VERDICTS = ("complete", "truncated", "damaged", "unknown")
"""States of `info.verdict`: whether the file is whole."""


# frozen, a million of them take twice the time
@dataclass(kw_only=True, slots=True)
class Stamp:
    """Lengths and modification times of a video and of its record when the record was written or checked."""

    source_bytes: int
    source_mtime_ns: int
    meta_bytes: int
    meta_mtime_ns: int

    @classmethod
    def of(cls, source: str, meta: str) -> Stamp:
        """Return the stamp of two files as they are.

        Raises:
            OSError, ValueError: the properties of one of them cannot be read.
        """
        record = os.stat(meta)  # noqa: PTH116 - of a million files
        return cls.join(cls.of_file(source), (record.st_size, record.st_mtime_ns))

    @staticmethod
    def of_file(source: str) -> tuple[int, int]:
        """Return length and modification time of a video as it is.

        Raises:
            OSError, ValueError, SourceError: they cannot be read.
        """
        if is_url(source):
            state = stat_object(source)
            return (state.size, state.mtime_ns) if state is not None else (-1, 0)
        found = os.stat(source)  # noqa: PTH116 - of a million files
        if stat.S_ISDIR(found.st_mode):
            pictures = identify(source)
            return pictures["bytes"], pictures["mtime_ns"]
        return found.st_size, found.st_mtime_ns

    @classmethod
    def join(cls, source: tuple[int, int], meta: tuple[int, int]) -> Stamp:
        """Return the stamp of a video and a record, each given by its length and modification time."""
        return cls(source_bytes=source[0], source_mtime_ns=source[1], meta_bytes=meta[0], meta_mtime_ns=meta[1])

    def agrees_with(self, line: Mapping[str, Any]) -> bool:
        """Return whether a line of a manifest has the same lengths and times.

        Raises:
            KeyError: it has none.
        """
        return bool(
            line["source_bytes"] == self.source_bytes
            and line["source_mtime_ns"] == self.source_mtime_ns
            and line["meta_bytes"] == self.meta_bytes
            and line["meta_mtime_ns"] == self.meta_mtime_ns
        )

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> Stamp | None:
        """Return the stamp in a line of a manifest; None without a record.

        Raises:
            KeyError, TypeError, ValueError: it is not a line of a manifest.
        """
        if "meta_bytes" not in line:
            return None
        return cls(**{name: int(line[name]) for name in cls.__dataclass_fields__})


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Result of one video; the attributes up to `seconds` are the keys of a JSON line.

    Attributes:
        source: the video, as given.
        meta: its .npz.
        status: `done`, `kept` (existed already), or `failed`.
        code: stable identifier of the reason of a failure, "" otherwise.
        message: description of the reason, "" otherwise.
        verdict: `complete`, `truncated`, `damaged` or `unknown`; None without a record.
        warnings: what the record contains and should not, or lacks although requested. A codec whose residual is not
            read is no warning, unless a proxy was requested.
        frames: sampled frames.
        packets: packets of the stream.
        gops: its GoPs.
        residual: source of the residual, or None.
        seconds: wall time in the worker.
        bytes_read: of a video by URL; None for local files, and where it was not read.
        codec: of the stream, or None without a record.
        duration_s: of the stream, or None where that is unknown.
        stamp: identifies the two files in a later run; None without a record.
        location: of the record in a tar shard; None where it is a file of its own.
    """

    source: str
    meta: str
    status: Status
    code: str = ""
    message: str = ""
    verdict: str | None = None
    warnings: tuple[str, ...] = ()
    frames: int = 0
    packets: int = 0
    gops: int = 0
    residual: str | None = None
    seconds: float = 0.0
    bytes_read: int | None = None
    codec: str | None = None
    duration_s: float | None = None
    stamp: Stamp | None = field(default=None, compare=False)
    location: Location | None = field(default=None, compare=False)

    def facts(self) -> dict[str, Any]:
        """Return the keys and values of a JSON line."""
        facts = asdict(self) | {"warnings": list(self.warnings)}
        for name in ("codec", "duration_s", "stamp", "location"):
            del facts[name]
        if self.bytes_read is None:
            del facts["bytes_read"]
        return facts

    def manifest_facts(self) -> dict[str, Any]:
        """Return the keys and values of a JSON line, and those for later runs and `codecmeta status`."""
        stamp = {} if self.stamp is None else asdict(self.stamp)
        location = {} if self.location is None else asdict(self.location)
        return self.facts() | {"codec": self.codec, "duration_s": self.duration_s} | stamp | location

    def json(self) -> str:
        """Return one line of ASCII JSON; file names that are not UTF-8 become lone surrogates."""
        return json.dumps(self.facts(), ensure_ascii=True)


def outcome_of(info: Mapping[str, Any], *, source: str, meta: str, status: Status, seconds: float = 0.0) -> Outcome:
    """Return the outcome of a video whose record exists.

    Args:
        info: of the record.
        source: the video.
        meta: the record's file.
        status: `done` or `kept`.
        seconds: wall time.
    """
    verdict, signals, extraction = info["verdict"], info["signals"], info["extraction"]
    options = extraction["options"]
    maps = [] if options["residual"] == "none" else options["maps"]
    warnings = [str(text) for text in extraction["warnings"]]
    absent = {name: str(signals[name]["absent"]) for name in maps if "absent" in signals[name]}
    warnings += [f"no {name} map ({why})" for name, why in absent.items() if not why.startswith("not asked for")]
    if verdict["state"] not in ("complete", "unknown"):
        warnings.append(f"the file is {verdict['state']}: {verdict['evidence']}")
    return Outcome(
        source=source,
        meta=meta,
        status=status,
        verdict=verdict["state"],
        warnings=tuple(warnings),
        frames=extraction["frames"],
        packets=verdict["packets"],
        gops=verdict["gops"],
        codec=info["stream"]["codec"],
        duration_s=info["stream"]["duration_s"],
        residual=next((signals[name]["source"] for name in maps if "source" in signals[name]), None),
        seconds=round(seconds, 3),
        bytes_read=info["source"].get("bytes_read") if status == "done" else None,
    )


def outcome_of_line(line: Mapping[str, Any], *, source: str, meta: str, stamp: Stamp | None = None) -> Outcome:
    """Return the outcome that a line of a manifest describes.

    Args:
        line: of the manifest.
        source: the video, by the name to report.
        meta: the record's file.
        stamp: of the two files now.

    Raises:
        KeyError, TypeError, ValueError: it is not a line of a manifest.
    """
    failed = line["status"] == "failed"
    return Outcome(
        source=source,
        meta=meta,
        status="failed" if failed else "kept",
        code=str(line["code"]) if failed else "",
        message=str(line["message"]) if failed else "",
        verdict=line["verdict"],
        warnings=tuple(map(str, line["warnings"])),
        frames=int(line["frames"]),
        packets=int(line["packets"]),
        gops=int(line["gops"]),
        residual=line["residual"],
        codec=line["codec"],
        duration_s=line["duration_s"],
        stamp=stamp,
        location=None if failed else Location.of_line(line),
    )
