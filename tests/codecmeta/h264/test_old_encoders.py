"""Encoders that departed from the standard: streams as they wrote them, written here and checked against FFmpeg."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.entropy.sei import split_messages
from codecmeta.errors import BitstreamError
from codecmeta.h264 import ResidualReader
from codecmeta.h264.encoder_build import find_x264_build
from codecmeta.h264.tables import constants
from tests.codecmeta.h264 import test_motion_vectors
from tests.codecmeta.h264.arithmetic_writer import ArithmeticWriter
from tests.codecmeta.h264.bit_writer import BitWriter
from tests.codecmeta.h264.streams import clipped, extradata, packets, pictures

COLUMNS, ROWS, QP = 6, 5, 28
SKIP, INTER, INTRA, PCM = range(4)
BLOCKS = {
    2: (93, 134, 195, 247),
    8: (468, 513, 601, 972),
    12: (480, 557, 645, 1002),
    5: (1012, 402, 417, 426),
    9: (1016, 660, 690, 708),
    13: (1020, 718, 748, 766),
}
"""First contexts of coded_block_flag, significant_coeff_flag, last_significant_coeff_flag and coeff_abs_level_minus1 of
frame coded blocks, by ctxBlockCat (Tables 9-34 and 9-40)."""
SIGNIFICANT_8X8 = constants()["sig_coeff_ctxIdxInc_8x8"]["frame"]
LAST_8X8 = constants()["last_coeff_ctxIdxInc_8x8"]["both"]


def parameter_sets() -> bytes:
    """High 4:4:4 Predictive, arithmetic code, 8x8 transform."""
    sps = BitWriter().u(244, 8).u(0, 8).u(30, 8).ue(0, 3).u(0, 1).ue(0, 0).u(0, 1).u(0, 1)
    sps.ue(4, 2, 1).u(0, 1).ue(COLUMNS - 1, ROWS - 1).u(1, 1).u(1, 1).u(0, 1).u(0, 1)
    pps = BitWriter().ue(0, 0).u(1, 1).u(0, 1).ue(0, 0, 0).u(0, 1).u(0, 2).se(0, 0, 0).u(1, 1).u(0, 1).u(0, 1)
    return sps.nal(0x67) + pps.u(1, 1).u(0, 1).se(0).nal(0x68)


def user_data(text: bytes) -> bytes:
    """Write an SEI NAL unit with unregistered user data."""
    writer = BitWriter().u(5, 8).u(16 + len(text), 8)
    for byte in b"u" * 16 + text:
        writer.u(byte, 8)
    return writer.nal(0x06)


class Macroblocks:
    """Random macroblocks in 4:4:4, with what contexts depend on."""

    def __init__(self, rng: np.random.Generator, writer: ArithmeticWriter, *, inter: bool, old: bool) -> None:
        self.rng, self.writer, self.inter, self.old = rng, writer, inter, old
        # one more row and column stands for what is beyond the picture: -1
        self.kind = np.full((ROWS + 1, COLUMNS + 1), -1)
        self.eight = np.zeros((ROWS + 1, COLUMNS + 1), bool)
        self.pattern = np.full((2 * ROWS + 2, 2 * COLUMNS + 2), 1)
        self.flags = np.zeros((3, 4 * ROWS + 4, 4 * COLUMNS + 4), int)

    def write(self) -> None:
        for number in range(ROWS * COLUMNS):
            self._write_one(number // COLUMNS + 1, number % COLUMNS + 1)
            self.writer.terminate(int(number == ROWS * COLUMNS - 1))

    def _write_one(self, y: int, x: int) -> None:
        bins, left, above = self.writer.bins, self.kind[y, x - 1], self.kind[y - 1, x]
        kind = int(self.rng.choice([SKIP, INTER, INTER, INTRA, PCM] if self.inter else [INTRA, INTRA, INTRA, PCM]))
        self.kind[y, x] = kind
        self.pattern[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = kind == PCM
        if self.inter:
            bins(11 + int(left > SKIP) + int(above > SKIP), int(kind == SKIP))
        if kind == SKIP:
            return
        if self.inter:
            bins(14, int(kind != INTER))
            if kind != INTER:
                bins(17, int(kind == PCM))
        else:
            bins(3 + int(left == PCM) + int(above == PCM), int(kind == PCM))
        if kind == PCM:
            self._write_pcm(y, x)
            return
        if kind == INTER:
            bins(15, 0)
            bins(16, 0)  # P_L0_16x16
            bins(40, 0)
            bins(47, 0)  # mvd 0
        else:
            self._write_transform_flag(y, x)
            bins(68, *[1] * (4 if self.eight[y, x] else 16))
        for block in range(4):
            v, u = 2 * y + block // 2, 2 * x + block % 2
            coded = int(self.rng.random() < 0.7)
            bins(73 + int(not self.pattern[v, u - 1]) + 2 * int(not self.pattern[v - 1, u]), coded)
            self.pattern[v, u] = coded
        if self.pattern[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].any():
            if kind == INTER:
                self._write_transform_flag(y, x)
            bins(60, 0)  # mb_qp_delta
            for plane in range(3):
                self._write_plane(plane, y, x)

    def _write_transform_flag(self, y: int, x: int) -> None:
        self.eight[y, x] = self.rng.random() < 0.5
        self.writer.bins(399 + int(self.eight[y, x - 1]) + int(self.eight[y - 1, x]), int(self.eight[y, x]))

    def _write_pcm(self, y: int, x: int) -> None:
        self.writer.terminate(1)
        self.writer.writer.u(1, 1).align_zero()
        for sample in self.rng.integers(100, 156, 3 * 256).tolist():
            self.writer.writer.u(sample, 8)
        self.writer.start()
        self.flags[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = 1

    def _write_plane(self, plane: int, y: int, x: int) -> None:
        eight = bool(self.eight[y, x])
        size, category = (2, (5, 9, 13)[plane]) if eight else (1, (2, 8, 12)[plane])
        for block in range(0, 16, size * size):
            v = 4 * y + (block >> 1 & 1) + (block >> 2 & 2)
            u = 4 * x + (block & 1) + (block >> 1 & 2)
            if not self.pattern[v // 2, u // 2]:
                continue
            beside, above = self._flag(plane, y, x, v, u - 1), self._flag(plane, y, x, v - 1, u)
            levels = np.zeros(16 * size * size, int)
            if self.rng.random() < 0.6:
                places = self.rng.integers(0, levels.size, 5)
                levels[places] = self.rng.integers(-9, 10, 5)
            self._write_block(category, levels, beside + 2 * above)
            self.flags[plane, v : v + size, u : u + size] = int(levels.any())

    def _flag(self, plane: int, y: int, x: int, v: int, u: int) -> int:
        """Return coded_block_flag of the block at 4x4 block (v, u), as the macroblock (y, x) sees it (9.3.3.1.1.9)."""
        kind, eight = self.kind[v // 4, u // 4], self.eight[v // 4, u // 4]
        other = (v // 4, u // 4) != (y, x)
        if kind == -1 or (other and self.old and self.eight[y, x] and not eight):
            return int(self.kind[y, x] == INTRA)
        if other and self.eight[y, x] and not eight:
            return int(kind == PCM)
        return int(self.flags[plane, v, u])

    def _write_block(self, category: int, levels: NDArray[Any], increment: int) -> None:
        """residual_block_cabac (7.3.5.3.3)."""
        bins = self.writer.bins
        places = np.flatnonzero(levels)
        flag, significant, last, base = BLOCKS[category]
        bins(flag + increment, int(places.size > 0))
        if not places.size:
            return
        for place in range(min(int(places[-1]) + 1, levels.size - 1)):
            steps = (SIGNIFICANT_8X8[place], LAST_8X8[place]) if levels.size == 64 else (place, place)
            bins(significant + steps[0], int(levels[place] != 0))
            if levels[place]:
                bins(last + steps[1], int(place == places[-1]))
        ones = above_one = 0
        for place in places[::-1]:
            magnitude = abs(int(levels[place]))
            bins(base + (0 if above_one else min(4, 1 + ones)), int(magnitude > 1))
            if magnitude > 1:
                bins(base + 5 + min(4, above_one), *[1] * (magnitude - 2), 0)
                above_one += 1
            else:
                ones += 1
            self.writer.bypass(int(levels[place] < 0))


def coded_pictures(*, old: bool) -> list[bytes]:
    """Write an I and a P picture; equal ones whether or not the contexts are those of x264 before build 151."""
    rng = np.random.default_rng(7)
    header = BitWriter().ue(0, 7, 0).u(0, 8).ue(0).u(0, 2).se(QP - 26).ue(1)
    writer = ArithmeticWriter(header, init="I", qp=QP)
    Macroblocks(rng, writer, inter=False, old=old).write()
    first = parameter_sets() + user_data(b"x264 - core %d" % (142 if old else 151)) + writer.writer.nal(0x65)
    # no override: one reference; no list modification; sliding window; cabac_init_idc 0
    header = BitWriter().ue(0, 5, 0).u(1, 8).u(0, 1).u(0, 1).u(0, 1).ue(0).se(QP - 26).ue(1)
    writer = ArithmeticWriter(header, init="0", qp=QP)
    Macroblocks(rng, writer, inter=True, old=old).write()
    return [first, writer.writer.nal(0x41)]


def decode(stream: bytes) -> list[NDArray[np.uint8]]:
    with av.open(io.BytesIO(stream), format="h264") as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def test_old_contexts_of_8x8_blocks() -> None:
    old, new = coded_pictures(old=True), coded_pictures(old=False)
    assert old[0][-400:] != new[0][-400:]
    assert old[1] != new[1]
    shown = decode(b"".join(old))
    assert len(shown) == 2
    np.testing.assert_array_equal(shown, decode(b"".join(new)))
    readers = ResidualReader(), ResidualReader()
    for one, other in zip(old, new, strict=True):
        residual, expected = (reader.read(packet) for reader, packet in zip(readers, (one, other), strict=True))
        for name in ("y", "cb", "cr", "mb_type", "qp", "cbp"):
            np.testing.assert_array_equal(getattr(residual, name), getattr(expected, name))
        assert all(getattr(residual, name).any() for name in ("y", "cb", "cr"))


@pytest.mark.parametrize("build", [b"x264 - core 151", b"another encoder 142"])
def test_contexts_of_the_standard_would_not_do(build: bytes) -> None:
    old = coded_pictures(old=True)[0].replace(user_data(b"x264 - core 142"), user_data(build))
    expected = ResidualReader().read(coded_pictures(old=False)[0])
    try:
        residual = ResidualReader().read(old)
    except BitstreamError:
        return
    assert (residual.y != expected.y).any()


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (b"x264 - core 142 r2431 - H.264/MPEG-4 AVC codec", 142),
        (b"x264 - core 0000 - H.264", None),
        (b"x264 - core 1 - H.264", 1),
        (b"x264 - core 00001", 67),
        (b"x264 - core ", None),
        (b"X264 - core 142", None),
    ],
)
def test_builds_of_x264(text: bytes, build: int | None) -> None:
    assert find_x264_build(b"\x05" + bytes([16 + len(text)]) + bytes(16) + text + b"\x80") == build


def test_messages_of_any_length() -> None:
    assert list(split_messages(b"\xff\x2d\xff\x01" + b"a" * 256 + b"\x05\x01b\x80")) == [(300, b"a" * 256), (5, b"b")]
    assert list(split_messages(b"\x05\x09ab\x80")) == []
    assert list(split_messages(b"\xff" * 9)) == []


def test_a_real_clip_of_an_old_build(shared: Path) -> None:
    path = shared / "cases" / "codec" / "old_x264_444_cabac.mp4"
    expected = np.load(path.with_suffix(".residual.npz"))
    reader = ResidualReader(extradata(path))
    shown = pictures(path)
    reader.observe(packets(path)[0])
    for number, index in list(enumerate(expected["frame_index"]))[::6]:
        picture = reader.read(shown[index].packet)
        for plane, key in zip(clipped(picture), ("y", "cb", "cr"), strict=True):
            total, square = expected[f"{key}_sum"][number], expected[f"{key}_sqsum"][number]
            blocks = plane.astype(np.int64).reshape(total.shape[0], 8, total.shape[1], 8)
            whole = square >= 0
            np.testing.assert_array_equal(blocks.sum((1, 3))[whole], total[whole])
            np.testing.assert_array_equal((blocks**2).sum((1, 3))[whole], square[whole])


def relabel(path: Path, build: bytes) -> Path:
    """Write the same raw stream with another build of x264 in its SEI."""
    stream = path.read_bytes()
    label = stream.index(b"x264 - core ") + 12
    other = path.with_stem(f"build{build.decode()}")
    other.write_bytes(stream[:label] + build + stream[label + 3 :])
    return other


def appear(index: int) -> NDArray[np.uint8]:
    """Return a texture that every fourth picture replaces, every other stripe of it moving."""
    texture = np.kron(np.random.default_rng((index + 3) // 4).integers(0, 256, (24, 48)), np.ones((4, 4)))
    image = texture[:, :128].astype(np.uint8)
    for top in range(0, 96, 32):
        image[top : top + 16] = texture[top : top + 16, 2 * index % 60 : 2 * index % 60 + 128]
    return image


def test_old_spatial_direct_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What rests in list 1 alone moves on to x264 up to build 33; the same stream under both labels."""
    monkeypatch.setattr(test_motion_vectors, "render", appear)
    settings = "direct=spatial:ref=4:bframes=3:b-pyramid=normal:b-adapt=0:repeat-headers=1"
    path = test_motion_vectors.encode(tmp_path / "clip.h264", settings)
    tables = []
    for build in (b"033", b"034"):
        labelled = relabel(path, build)
        same, different = test_motion_vectors.compare(labelled)
        assert different == 0
        assert same > 1000
        tables.append([row[3] for row in test_motion_vectors.read_motion(labelled)])
    assert any(not np.array_equal(old, new) for old, new in zip(*tables, strict=True))
