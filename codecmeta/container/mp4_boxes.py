"""Tracks of an ISO base media file (MP4, MOV), as the `moov` box describes them, without reading their samples."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from codecmeta.container.box import Box, child, children, parse_head
from codecmeta.container.display_matrix import Matrix, read_track_matrix
from codecmeta.container.edit_list import apply_edit, count_hidden_end, read_edit
from codecmeta.container.sample_description import SampleDescription, read_descriptions
from codecmeta.container.sample_table import MOST_SAMPLES, SampleTable, read_samples
from codecmeta.storage.byte_source import ByteSource

MAX_MOOV = 512 << 20
MAX_TOP_LEVEL = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Track:
    """Track description.

    Attributes:
        samples: its samples; None where the `moov` box does not list all of them (fragmented files), or lists them
            in a form that is left to the demuxer.
        descriptions: its sample descriptions, in the order of their index.
        matrix: display matrix of the track in its movie.
        hidden_end: number of samples at its end that its edit list hides although its header counts them in.
        fragmented: `moof` boxes may list more samples.
    """

    samples: SampleTable | None
    descriptions: tuple[SampleDescription, ...]
    matrix: Matrix
    hidden_end: int = 0
    fragmented: bool = False

    @property
    def protection(self) -> str | None:
        """The encryption scheme of its samples; None where they are not encrypted."""
        return next((one.protection for one in self.descriptions if one.protection), None)


def top_level_boxes(source: ByteSource) -> list[Box]:
    """Return the boxes of a file, in order; the last one may claim to end beyond it."""
    boxes: list[Box] = []
    position = 0
    while position + 8 <= source.size and len(boxes) < MAX_TOP_LEVEL:
        box = parse_head(source.read_at(position, 16), position, source.size)
        if box is None:
            break
        boxes.append(box)
        position = box.end
    return boxes


def read_track(source: ByteSource, track_id: int, *, most_samples: int = MOST_SAMPLES) -> Track | None:
    """Find a track in the `moov` box; return None where it has no such track.

    Args:
        source: the file.
        track_id: identifier in the track's header, libav's `stream.id`.
        most_samples: samples that its tables may list.

    Raises:
        SourceError: its tables list more than the file can hold, or than is allowed.
    """
    for box in top_level_boxes(source):
        if box.type == b"moov" and box.end <= source.size and box.end - box.begin <= MAX_MOOV:
            moov = source.read_at(box.begin, box.end - box.begin)
            return _find_track(moov, track_id, file_size=source.size, most=most_samples)
    return None


def _find_track(moov: bytes, track_id: int, *, file_size: int, most: int) -> Track | None:
    movie = Box(b"moov", 0, len(moov))
    fragmented = child(moov, movie, b"mvex") is not None
    for trak in children(moov, 0, len(moov)):
        header = child(moov, trak, b"tkhd") if trak.type == b"trak" else None
        if header is None or _track_id(moov, header) != track_id:
            continue
        descriptions = read_descriptions(moov, trak)
        movie_header = child(moov, movie, b"mvhd")
        samples, hidden = None, 0
        if not fragmented:
            samples = read_samples(moov, trak, descriptions=len(descriptions), file_size=file_size, most=most)
            edit = read_edit(moov, trak, movie_header)
            if samples is not None and edit is not None:
                hidden = count_hidden_end(samples, edit)
            samples = None if samples is None or edit is None else apply_edit(samples, edit)
        return Track(
            samples=samples,
            descriptions=descriptions,
            matrix=read_track_matrix(moov, header, movie_header),
            hidden_end=hidden,
            fragmented=fragmented,
        )
    return None


def _track_id(moov: bytes, header: Box) -> int | None:
    if header.end - header.begin < 24:
        return None
    at = header.begin + (20 if moov[header.begin] == 1 else 12)
    return int(struct.unpack_from(">I", moov, at)[0])
