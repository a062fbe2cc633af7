"""Verification of records against the videos that they were made from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from codecmeta.batch.folder_status import Folder, as_folder, holds_conversions
from codecmeta.batch.inputs import SUFFIX
from codecmeta.batch.manifest import read_manifest
from codecmeta.batch.record_index import packed_location
from codecmeta.errors import BitstreamError, MetaFormatError, SourceError, UsageError
from codecmeta.picture_folder import identify
from codecmeta.record.dataset import Entry, load_entry
from codecmeta.record.limits import Limits
from codecmeta.record.meta import VideoMeta
from codecmeta.record.tar_shard import ShardFolder
from codecmeta.storage.address import Place

if TYPE_CHECKING:
    from codecmeta.container.packets import PacketTable
    from codecmeta.container.video import Video
    from codecmeta.decoding.decoder import Picture


@dataclass(frozen=True, kw_only=True)
class Check:
    """Record to verify.

    Attributes:
        meta: its .npz.
        entry: location of the record, in a file of its own or in a shard.
        source: the video, None where it is unknown.
        deep: decode the whole video.
        limits: the largest demands that the video may make.
        failure: reason why an earlier run left no record, "" where it did.
    """

    meta: str
    entry: Entry
    source: str | None
    deep: bool
    limits: Limits
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Result of one check; the attributes are the keys of a JSON line.

    Attributes:
        source: the video, "" where it is unknown.
        meta: the record.
        status: `sound` or `failed`.
        code: stable identifier of the reason of a failure, "" otherwise.
        message: description of the reason, "" otherwise.
        seconds: wall time in the worker.
    """

    source: str
    meta: str
    status: Literal["sound", "failed"]
    code: str = ""
    message: str = ""
    seconds: float = 0.0

    def json(self) -> str:
        """Return one line of ASCII JSON; file names that are not UTF-8 become lone surrogates."""
        return json.dumps(asdict(self), ensure_ascii=True)


_MOST_DIFFERENCE = 3.0
"""Mean of absolute differences of 8-bit samples up to which pictures of two versions of libav count as equal."""


class _FailedError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def find_checks(meta: Path | Folder, *, videos: Place | None, deep: bool, limits: Limits) -> Iterator[Check]:
    """Find the records that a folder's manifest lists, then others that are in it.

    Args:
        meta: an output folder of `codecmeta extract`.
        videos: the folder of the videos, or its URL, at the places of their records; None where the manifest gives
            their paths.
        deep: decode the videos.
        limits: the largest demands that a video may make.

    Raises:
        UsageError: the folder holds neither a record nor a manifest.
        OSError: the manifest cannot be read.
        SourceError: the store of a folder cannot be reached.
    """
    folder = as_folder(meta)
    if holds_conversions(folder):
        raise UsageError(f"{folder.place} holds videos, which normalize converted, and no record; extract them first")
    shards, base = ShardFolder(folder.place), folder.place.rstrip("/")
    # hashes, not names: there may be millions
    listed: set[int] = set()

    def check(place: str, line: Mapping[str, Any]) -> Check:
        path, failed = line.get("path"), line.get("status") == "failed"
        source = f"{os.fspath(videos).rstrip('/')}/{place.removesuffix(SUFFIX)}" if videos is not None else path
        entry, packed = Entry(place, f"{base}/{place}"), packed_location(line)
        if packed is not None and shards.holds(packed):
            entry = Entry(place, shards.place_of(packed.shard), packed.offset, packed.bytes)
        return Check(
            meta=f"{base}/{place}",
            entry=entry,
            source=source if isinstance(source, str) else None,
            deep=deep,
            limits=limits,
            failure=str(line.get("message", "")) if failed and folder.size_of(place) is None else "",
        )

    for line in read_manifest(folder.path):
        listed.add(hash(line["place"]))
        yield check(line["place"], line)
    for place in folder.list_places():
        if hash(place) not in listed:
            listed.add(hash(place))
            yield check(place, {})
    if not listed:
        raise UsageError(f"{folder.place} holds no record; give a folder that `codecmeta extract` wrote")


def verify_record(check: Check) -> Finding:
    """Verify one record: that it is valid, was made from this video, and agrees with it.

    The whole record is read, its video is compared with the digest in it, and its packets with those of the video. With
    `deep`, the whole video is decoded, and the coded data of H.264 and HEVC is also read by the project's own readers.
    """
    begin = time.perf_counter()
    code = message = ""
    try:
        _verify(check)
    except _FailedError as error:
        code, message = error.code, str(error)
    except SourceError as error:
        code, message = error.code, str(error)
    except MemoryError:
        code, message = "out_of_memory", "not enough memory"
    except Exception as error:
        # errors of a hostile file stay with that file
        code, message = "internal", f"{type(error).__name__}: {error}"
    return Finding(
        source=check.source or "",
        meta=check.meta,
        status="failed" if code else "sound",
        code=code,
        message=" ".join(message.split()),
        seconds=round(time.perf_counter() - begin, 3),
    )


def lost_check(check: Check, code: str, message: str, seconds: float) -> Finding:
    """Return the finding about a record whose check was lost."""
    return Finding(
        source=check.source or "", meta=check.meta, status="failed", code=code, message=message, seconds=seconds
    )


def _verify(check: Check) -> None:
    if check.failure:
        raise _FailedError("no_record", f"it was not extracted: {check.failure}")
    try:
        record = load_entry(check.entry, max_bytes=check.limits.bytes)
    except FileNotFoundError as error:
        raise _FailedError("no_record", "the manifest lists it, but it is gone; extract the video again") from error
    except (OSError, MetaFormatError) as error:
        raise _FailedError("bad_record", str(error)) from error
    except SourceError as error:
        if error.code == "not_a_file":
            raise _FailedError("no_record", "the manifest lists it, but its shard is gone") from error
        raise
    if check.source is None:
        raise _FailedError("no_source", "the manifest does not list its video; give its folder with --videos")
    try:
        now = identify(check.source)
    except OSError as error:
        raise _FailedError("no_source", f"its video cannot be read ({error.strerror or error})") from error
    except SourceError as error:
        raise _FailedError("no_source", f"its video cannot be read ({error})") from error
    recorded = record.info["source"]
    if any(now[name] != recorded.get(name) for name in ("bytes", "sha256")):
        lengths = f"{recorded.get('bytes')} bytes then, {now['bytes']} now"
        raise _FailedError("stale", f"the video differs from the one it was made from ({lengths}); extract it again")
    # the digest of a folder of pictures covers all of them
    if not Path(check.source).is_dir():
        _verify_source(check, check.source, record)


def _reads_payloads(record: VideoMeta) -> bool:
    """Return whether a record holds more than the packet table, so that payloads confirmed all of its key flags."""
    return record.has_frames or any(array is not None for array in (record.residual_power, record.mv, record.qp))


def _verify_source(check: Check, source: str, record: VideoMeta) -> None:
    from codecmeta.container.packets import read_packets
    from codecmeta.container.video import open_video

    verdict = record.info["verdict"]
    state = str(verdict.get("state"))
    if state not in ("complete", "unknown"):
        raise _FailedError(state, f"the file is {state}: {verdict.get('evidence')}")
    with open_video(source, check.limits, track=record.info["stream"].get("index")) as video:
        packets = read_packets(video, payloads=_reads_payloads(record))
        for name in ("size", "pts", "dts", "key"):
            then, now = getattr(record, f"packet_{name}"), getattr(packets, name)
            if not np.array_equal(then, now):
                raise _FailedError("differs", f"packet_{name} differs from the video; extract it again")
        if check.deep:
            _verify_coded_data(video, packets)
            _verify_pictures(video, packets, record)


def _verify_coded_data(video: Video, packets: PacketTable) -> None:
    """Read the coded data of every shown picture, where a bitstream reader exists.

    Entropy-coded data may contradict itself where libav's decoder conceals that without an error.
    """
    from codecmeta.container.packet_reader import read_payloads
    from codecmeta.residual.choice import choose_sources, open_source
    from codecmeta.residual.source import Evidence

    if "bitstream" not in choose_sources("auto", video.codec):
        return
    source = open_source("bitstream", video)
    shown = np.flatnonzero(packets.shown)
    unreadable, first = 0, ""
    for number, payload in read_payloads(video, packets, shown[shown >= np.flatnonzero(packets.key)[0]].tolist()):
        if packets.key[number]:
            source.restart()
        source.observe(payload)
        try:
            source.read(Evidence(payload=payload), block=8, energy=False, cells=False)
        except BitstreamError as error:
            if error.unsupported is None:
                unreadable += 1
                first = first or f"packet {number}: {error}"
    if unreadable:
        text = f"the coded data of {unreadable} of {shown.size} pictures contradicts itself ({first})"
        raise _FailedError("damaged", text)


def _verify_pictures(video: Video, packets: PacketTable, record: VideoMeta) -> None:
    """Decode a whole video, and compare the pictures with those of the record."""
    import av

    from codecmeta.decoding.linear_decode import decode_video
    from codecmeta.frame_columns import display_picture
    from codecmeta.record.jpeg import decode_frames, encode_frames

    rows = {} if record.frames is None else {int(packet): row for row, packet in enumerate(record.frame_packet)}
    options = record.info["extraction"].get("options", {})
    aspect = record.sample_aspect if options.get("square_pixels") else None
    same_libav = record.info["extraction"].get("libraries", {}).get("ffmpeg") == av.ffmpeg_version_info
    most = 0.0 if same_libav else _MOST_DIFFERENCE
    other: list[int] = []

    def look(picture: Picture) -> None:
        row = rows.pop(picture.packet, None)
        if row is not None and record.frames is not None:
            kept = record.frames[row]
            shown = display_picture(
                picture,
                video,
                short_side=record.info["extraction"]["pixels"],
                orientation=record.orientation,
                sample_aspect=aspect,
            )
            if record.frames_jpeg is not None and options.get("jpeg"):
                shown = decode_frames(*encode_frames(shown[np.newaxis], quality=options["jpeg"]))[0]
            if shown.shape != kept.shape or np.abs(shown.astype(np.int16) - kept).mean() > most:
                other.append(row)

    found = decode_video(video, packets, look=look)
    if not found.sound:
        counts = {"errors": found.errors, "corrupt pictures": found.corrupt, "missing pictures": found.missing}
        text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        raise _FailedError("damaged", f"decoding all {found.packets} packets gives {text}")
    if other or rows:
        first = min([*other, *rows.values()])
        raise _FailedError("differs", f"frames[{first}] differs from a full decode; extract the video again")
