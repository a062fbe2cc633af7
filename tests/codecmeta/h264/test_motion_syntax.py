"""Motion vector differences plus their prediction are the vectors that FFmpeg exports (8.4.1.3).

Every slice is one macroblock: no neighbour is available but those inside it, and its differences are still in the
slice record after it was read.
"""

from __future__ import annotations

import io
from collections import Counter

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import ResidualReader, nal
from codecmeta.record.macroblock_types import P_8X8, P_8X16, P_16X8, P_16X16
from tests.codecmeta.h264.streams import CLIPS

PARTS = {
    P_16X16: ((0, 0, 4, 4),),
    P_16X8: ((0, 0, 4, 2), (0, 2, 4, 2)),
    P_8X16: ((0, 0, 2, 4), (2, 0, 2, 4)),
}
"""x, y, width and height of the partitions, in 4x4 blocks."""

SUB_SIZES = ((2, 2), (2, 1), (1, 2), (1, 1))
"""Width and height of the partitions of an 8x8 block by its shape."""

Vector = tuple[int, int]


def encode(entropy: str) -> bytes:
    """Encode a clip of one reference picture and no B pictures, a slice for each macroblock."""
    output = io.BytesIO()
    with av.open(str(CLIPS / "high_default.mp4")) as source, av.open(output, "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
        options = f"{entropy}:slice-max-mbs=1:ref=1:bframes=0:weightp=0:partitions=all:me=umh:subme=7:crf=16:threads=1"
        stream.options = {"preset": "medium", "x264-params": options}
        for frame in source.decode(video=0):
            frame.pict_type = av.video.frame.PictureType.NONE
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return output.getvalue()


def exported(stream: bytes) -> list[tuple[bytes, NDArray[np.void]]]:
    """Packet and motion vectors of every picture."""
    with av.open(io.BytesIO(stream), format="h264") as container:
        context = container.streams.video[0].codec_context
        context.thread_type, context.thread_count = "NONE", 1
        context.options = {"flags2": "+export_mvs"}
        packets, frames = [], []
        for packet in container.demux(video=0):
            packets += [bytes(packet)] if packet.size else []
            frames += packet.decode()
        vectors = [frame.side_data.get("MOTION_VECTORS") for frame in frames]
        empty = next(one.to_ndarray() for one in vectors if one is not None)[:0]
        found = [empty if one is None else one.to_ndarray() for one in vectors]
        return list(zip(packets, found, strict=True))


def partitions(kind: int, shapes: NDArray[np.int64]) -> list[tuple[int, int, int, int]]:
    """Return the partitions of a P macroblock in order, as in `PARTS`."""
    if kind != P_8X8:
        return list(PARTS[kind])
    parts = []
    for block in range(4):
        across, down = SUB_SIZES[shapes[block]]
        x0, y0 = block % 2 * 2, block // 2 * 2
        parts += [(x0 + x, y0 + y, across, down) for y in range(0, 2, down) for x in range(0, 2, across)]
    return parts


def predict(known: dict[Vector, Vector], part: tuple[int, int, int, int], kind: int) -> Vector:
    """mvpLX (8.4.1.3) from the vectors `known` inside the macroblock, where all have the same reference."""
    x, y, across, _ = part
    a, b = known.get((x - 1, y)), known.get((x, y - 1))
    c = known.get((x + across, y - 1), known.get((x - 1, y - 1)))
    directional = {P_16X8: (b, a)[y // 2], P_8X16: (a, c)[x // 2]}.get(kind)
    if directional is not None:
        return directional
    if b is None and c is None and a is not None:
        return a
    there = [one for one in (a, b, c) if one is not None]
    if len(there) == 1:
        return there[0]
    columns = zip(*(one or (0, 0) for one in (a, b, c)), strict=True)
    horizontal, vertical = (sorted(column)[1] for column in columns)
    return horizontal, vertical


def vectors_of(state: np.void, *, predicted: bool) -> dict[Vector, Vector]:
    """Vector of every 4x4 block of the P macroblock in the slice record; the bare differences unless `predicted`."""
    known: dict[Vector, Vector] = {}
    for part in partitions(int(state["kind"]), state["part_shape"]):
        x, y, across, down = part
        mvp = predict(known, part, int(state["kind"])) if predicted else (0, 0)
        mvd = state["mvd"][0, 6 + 5 * y + x]
        vector = mvp[0] + int(mvd[0]), mvp[1] + int(mvd[1])
        known |= {(x + dx, y + dy): vector for dy in range(down) for dx in range(across)}
    return known


@pytest.mark.parametrize("entropy", ["cabac=1:8x8dct=1", "cabac=0"])
def test_differences_and_their_prediction_make_the_vectors(entropy: str) -> None:
    kinds: Counter[int] = Counter()
    bare = moving = 0
    reader = ResidualReader()
    for packet, vectors in exported(encode(entropy)):
        reader.observe(packet)
        expected = {(int(v["dst_x"]), int(v["dst_y"])): (int(v["motion_x"]), int(v["motion_y"])) for v in vectors}
        slices = [unit for unit in nal.split(packet, 0) if unit.kind in (nal.SLICE, nal.IDR_SLICE)]
        assert len(slices) == 99
        for address, unit in enumerate(slices):
            with pytest.raises(BitstreamError, match="do not cover"):
                reader.read(b"\0\0\1" + bytes([unit.ref_idc << 5 | unit.kind]) + unit.payload)
            state = reader._slice[0]
            kind = int(reader._buffers[False, 0].macroblocks["kind"][address])
            if not P_16X16 <= kind <= P_8X8:
                continue
            kinds[kind] += 1
            found, differences = vectors_of(state, predicted=True), vectors_of(state, predicted=False)
            for x, y, across, down in PARTS.get(kind, [(x, y, 2, 2) for y in (0, 2) for x in (0, 2)]):
                centre = address % 11 * 16 + 4 * x + 2 * across, address // 11 * 16 + 4 * y + 2 * down
                assert found[x, y] == expected[centre], (address, kind, x, y)
                bare += differences[x, y] == expected[centre]
                moving += 1
    assert min(kinds[kind] for kind in (P_16X16, P_16X8, P_8X16, P_8X8)) >= 5, kinds
    # without the prediction many are wrong: the comparison can fail
    assert bare < 0.9 * moving
