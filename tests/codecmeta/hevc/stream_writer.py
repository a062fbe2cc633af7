"""Streams of random HEVC syntax with their residual, QP and bits, written from the text of the standard.

Every picture is random: what its bins say is chosen while they are written, and what they mean is kept in plain maps of
the whole picture. Nothing here is shared with the reader but the numbers of tables.json.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.hevc.residual_writer import ContextCoder
from tests.codecmeta.hevc.unit_writer import UnitWriter

TRAIL_R, IDR, SPS, PPS = 1, 19, 33, 34
B, P, I = 0, 1, 2  # noqa: E741


@dataclass(kw_only=True)
class Tools:
    """A random choice of coding tools, named as the syntax elements are."""

    chroma: int
    depth: int
    log2_ctb: int
    log2_min_cb: int
    log2_min_tb: int
    log2_max_tb: int
    depth_inter: int
    depth_intra: int
    size: tuple[int, int]
    amp: bool
    sao: bool
    pcm: bool
    scaling: bool
    sign_hiding: bool
    skip: int
    qp_delta: int
    offsets: tuple[int, int]
    offset_list: tuple[tuple[int, int], ...]
    bypass: bool
    rotation: bool
    skip_context: bool
    implicit: bool
    explicit: bool
    rice: bool
    cross: bool
    wavefront: bool
    columns: tuple[int, ...]
    rows: tuple[int, ...]
    dependent: bool

    @classmethod
    def choose(cls, rng: random.Random) -> Tools:
        chroma = rng.choice((0, 1, 1, 2, 3))
        log2_ctb = rng.choice((4, 5, 6))
        log2_min_cb = rng.randint(3, log2_ctb)
        log2_min_tb = rng.randint(2, min(log2_min_cb - 1, 4))
        log2_max_tb = rng.randint(log2_min_tb, min(log2_ctb, 5))
        unit = 1 << log2_min_cb
        size = unit * rng.randint(1, max(1, 128 // unit)), unit * rng.randint(1, max(1, 96 // unit))
        wide, tall = (-(-side >> log2_ctb) for side in size)
        wavefront = rng.random() < 0.4

        def tiles(count: int) -> tuple[int, ...]:
            inner = range(1, count)
            cuts = [] if wavefront or rng.random() < 0.5 else rng.sample(inner, rng.randint(0, len(inner)))
            return (0, *sorted(cuts), count)

        extended = rng.random() < 0.6
        coin = [extended and rng.random() < 0.5 for _ in range(6)]
        deepest = log2_ctb - log2_min_tb
        offset_list = tuple((rng.randint(-6, 6), rng.randint(-6, 6)) for _ in range(rng.randint(1, 6)))
        return cls(
            chroma=chroma,
            depth=rng.choice((8, 8, 10, 12)),
            log2_ctb=log2_ctb,
            log2_min_cb=log2_min_cb,
            log2_min_tb=log2_min_tb,
            log2_max_tb=log2_max_tb,
            depth_inter=rng.randint(0, deepest),
            depth_intra=rng.randint(0, deepest),
            size=size,
            amp=rng.random() < 0.5,
            sao=rng.random() < 0.5,
            pcm=log2_min_cb < 6 and rng.random() < 0.3,
            scaling=rng.random() < 0.3,
            sign_hiding=rng.random() < 0.5,
            skip=rng.choice((0, 2, rng.randint(2, 5) if extended else 2)),
            qp_delta=rng.randint(-1, log2_ctb - log2_min_cb),
            offsets=(rng.randint(-6, 6), rng.randint(-6, 6)),
            offset_list=offset_list if extended and chroma and rng.random() < 0.5 else (),
            bypass=rng.random() < 0.3,
            rotation=coin[0],
            skip_context=coin[1],
            implicit=coin[2],
            explicit=coin[3],
            rice=coin[4],
            cross=coin[5] and chroma == 3,
            wavefront=wavefront,
            columns=tiles(wide),
            rows=tiles(tall),
            dependent=rng.random() < 0.5,
        )

    @property
    def extended(self) -> bool:
        return any((self.rotation, self.skip_context, self.implicit, self.explicit, self.rice))

    @property
    def tiled(self) -> bool:
        return len(self.columns) > 2 or len(self.rows) > 2

    def sequence(self) -> bytes:
        writer = BitWriter().u(0, 4).u(0, 3).u(1, 1)
        writer.u(4, 8).u(0, 32).u(0, 32).u(0, 16).u(93, 8)
        writer.ue(0, self.chroma).u(0, 1 if self.chroma == 3 else 0).ue(*self.size).u(0, 1)
        writer.ue(self.depth - 8, self.depth - 8, 0).u(1, 1).ue(1, 0, 0)
        writer.ue(self.log2_min_cb - 3, self.log2_ctb - self.log2_min_cb)
        writer.ue(self.log2_min_tb - 2, self.log2_max_tb - self.log2_min_tb, self.depth_inter, self.depth_intra)
        writer.u(self.scaling, 1).u(0, 1 if self.scaling else 0)
        writer.u(self.amp, 1).u(self.sao, 1).u(self.pcm, 1)
        if self.pcm:
            low, high = self.pcm_sizes
            writer.u(4, 4).u(6, 4).ue(low - 3, high - low).u(0, 1)
        writer.ue(0).u(0, 1).u(1, 1).u(0, 1).u(0, 1).u(self.extended, 1)
        if self.extended:
            writer.u(1, 1).u(0, 7)
            writer.u(self.rotation, 1).u(self.skip_context, 1).u(self.implicit, 1).u(self.explicit, 1)
            writer.u(0, 3).u(self.rice, 1).u(0, 1)
        return writer.nal(SPS << 9 | 1, header_bytes=2)

    @property
    def pcm_sizes(self) -> tuple[int, int]:
        """Range of the logarithms of PCM block sizes."""
        return min(max(self.log2_min_cb, 3), 5), min(self.log2_ctb, 5)

    def picture(self) -> bytes:
        writer = BitWriter().ue(0, 0).u(self.dependent, 1).u(0, 4).u(self.sign_hiding, 1).u(1, 1).ue(1, 0).se(0)
        writer.u(0, 1).u(self.skip > 0, 1).u(self.qp_delta >= 0, 1)
        if self.qp_delta >= 0:
            writer.ue(self.qp_delta)
        writer.se(*self.offsets).u(0, 3).u(self.bypass, 1).u(self.tiled, 1).u(self.wavefront, 1)
        if self.tiled:
            writer.ue(len(self.columns) - 2, len(self.rows) - 2).u(0, 1)
            for bounds in (self.columns, self.rows):
                writer.ue(*[b - a - 1 for a, b in pairwise(bounds[:-1])])
            writer.u(0, 1)
        writer.u(0, 1).u(0, 1).u(0, 1).u(0, 1).ue(0).u(0, 1)
        ranged = self.skip > 2 or self.cross or bool(self.offset_list)
        writer.u(ranged, 1)
        if ranged:
            writer.u(1, 1).u(0, 7)
            if self.skip:
                writer.ue(self.skip - 2)
            writer.u(self.cross, 1).u(bool(self.offset_list), 1)
            if self.offset_list:
                writer.ue(0, len(self.offset_list) - 1)
                for pair in self.offset_list:
                    writer.se(*pair)
            writer.ue(0, 0)
        return writer.nal(PPS << 9 | 1, header_bytes=2)


@dataclass(kw_only=True)
class WrittenPicture:
    """A packet and what it says: planes, QpY by 8x8 block, and bits by coding unit (x, y, size, bits)."""

    packet: bytes
    planes: list[NDArray[np.int64]]
    qp: NDArray[np.int64]
    units: list[tuple[int, int, int, int]] = field(default_factory=list)
    slice_bits: int = 0


def write_picture(tools: Tools, rng: random.Random, *, first: bool) -> WrittenPicture:
    """One picture of random slices and segments.

    Args:
        tools: what may be used.
        rng: chooses.
        first: an IDR picture.
    """
    size = 1 << tools.log2_ctb
    wide, tall = tools.columns[-1], tools.rows[-1]
    tiles = [
        [(column, row) for row in range(top, bottom) for column in range(left, right)]
        for top, bottom in pairwise(tools.rows)
        for left, right in pairwise(tools.columns)
    ]
    order = [place for tile in tiles for place in tile]
    starts_tile = {tile[0] for tile in tiles}
    starts_row = {place for tile in tiles for place in tile if place[0] == tile[0][0]}
    unit = UnitWriter(tools=tools, rng=rng, tile={place: n for n, tile in enumerate(tiles) for place in tile})
    packets: list[bytes] = []
    coder: ContextCoder | None = None
    row_contexts = segment_contexts = None
    slice_bits = data_start = 0
    header: dict[str, int] = {}
    for number, place in enumerate(order):
        begins = number == 0 or coder is None
        dependent = False
        if begins:
            dependent = number > 0 and tools.dependent and rng.random() < 0.6
            if not dependent:
                header = _choose_header(tools, rng, intra=first)
                unit.start_slice(number, header)
            writer = _write_header(tools, header, place[1] * wide + place[0], wide * tall, dependent, first)
            writer.bits += "1" + "0" * (-(len(writer.bits) + 1) % 8)
            data_start = len(writer.bits)
            coder = ContextCoder(writer, states=[], ranges=unit.ranges, after_lps=unit.after_lps)
            unit.start_segment(coder, data_start)
        assert coder is not None
        at_row = tools.wavefront and place in starts_row
        if place in starts_tile:
            coder.initialise(header["init_type"], header["qp"])
            unit.start_qp()
        elif at_row:
            unit.start_qp()
            above = (place[0] + 1, place[1] - 1)
            if unit.same_slice(above, number_of_slice=unit.slice) and row_contexts is not None:
                coder.restore(row_contexts)
            else:
                coder.initialise(header["init_type"], header["qp"])
        elif begins and dependent:
            assert segment_contexts is not None
            coder.restore(segment_contexts)
        elif begins:
            coder.initialise(header["init_type"], header["qp"])
        unit.write_tree_unit(place, size)
        if tools.wavefront and place[0] == 1:
            row_contexts = coder.saved()
        following = order[number + 1] if number + 1 < len(order) else None
        ends = following is None or rng.random() < (0.15 if tools.dependent or number % 3 else 0.05)
        coder.terminate(int(ends))
        if ends:
            segment_contexts = coder.saved()
            unit.end_segment(len(coder.writer.bits) + 1)
            slice_bits += len(coder.writer.bits) + 1 - data_start
            kind = IDR if first else TRAIL_R
            packets.append(coder.writer.nal(kind << 9 | 1, header_bytes=2))
            coder = None
        elif following in starts_tile or (tools.wavefront and following in starts_row):
            coder.terminate(1)
            coder.writer.bits += "1"
            coder.writer.align_zero()
            coder.start()
    return WrittenPicture(
        packet=b"".join(packets), planes=unit.planes, qp=unit.qp, units=unit.units, slice_bits=slice_bits
    )


def _choose_header(tools: Tools, rng: random.Random, *, intra: bool) -> dict[str, int]:
    kind = I if intra else rng.choice((B, P, I))
    cabac_init = int(kind != I and rng.random() < 0.5)
    return {
        "type": kind,
        "cabac_init": cabac_init,
        "init_type": 0 if kind == I else (2 - kind if not cabac_init else 1 + kind),
        "qp": rng.randint(-6 * (tools.depth - 8), 51),
        "sao_luma": int(tools.sao and rng.random() < 0.7),
        "sao_chroma": int(tools.sao and tools.chroma > 0 and rng.random() < 0.7),
        "l0": rng.randint(1, 4),
        "l1": rng.randint(1, 4),
        "l1_zero": rng.randint(0, 1),
        "candidates": rng.randint(1, 5),
        "chroma_offset": int(bool(tools.offset_list) and rng.random() < 0.8),
    }


def _write_header(
    tools: Tools, header: dict[str, int], address: int, count: int, dependent: bool, idr: bool
) -> BitWriter:
    """slice_segment_header (7.3.6.1) without its alignment."""
    writer = BitWriter().u(address == 0, 1)
    if idr:
        writer.u(0, 1)
    writer.ue(0)
    if address:
        if tools.dependent:
            writer.u(dependent, 1)
        writer.u(address, (count - 1).bit_length())
    if not dependent:
        kind = header["type"]
        writer.ue(kind)
        if not idr:
            # a reference picture set of its own: one picture before
            writer.u(1, 4).u(0, 1).ue(1, 0, 0).u(1, 1).u(0, 1)
        if tools.sao:
            writer.u(header["sao_luma"], 1)
            if tools.chroma:
                writer.u(header["sao_chroma"], 1)
        if kind != I:
            writer.u(1, 1).ue(header["l0"] - 1)
            if kind == B:
                writer.ue(header["l1"] - 1).u(header["l1_zero"], 1)
            writer.u(header["cabac_init"], 1)
            writer.ue(5 - header["candidates"])
        writer.se(header["qp"] - 26)
        if tools.offset_list:
            writer.u(header["chroma_offset"], 1)
    if tools.tiled or tools.wavefront:
        writer.ue(0)
    return writer
