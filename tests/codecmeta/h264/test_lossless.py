"""Transform bypass: the residual against the pixels, which are lossless (8.5.15)."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.h264 import ResidualReader
from codecmeta.record.macroblock_types import I_4X4, I_8X8, I_16X16

SIZE = (96, 128)


def encode(pixel_format: str, options: str, *, lines: bool = False) -> tuple[bytes, bytes, list[NDArray[np.int64]]]:
    """Extradata, the packet of one lossless I picture, and its planes."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    luma = 110 + 40 * np.sin(x / 9) * (y > 48) + 40 * np.sin(y / 7) * (x > 64) + rng.normal(0, 2, SIZE) * (x < 80)
    if lines:
        luma = 110 + 60 * np.sin(y / 5) + rng.normal(0, 2, SIZE) * (x % 48 < 8)
    output = io.BytesIO()
    with av.open(output, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], pixel_format
        stream.options = {"qp": "0", "x264-params": options}
        rgb = np.clip(np.stack([luma, 0.7 * luma + 30, 200 - luma / 2], -1), 0, 255).astype(np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixel_format)))
        container.mux(stream.encode())
    output.seek(0)
    with av.open(output) as container:
        stream = container.streams.video[0]
        extradata = bytes(stream.codec_context.extradata or b"")
        packet = next(container.demux(stream))
        (frame,) = stream.codec_context.decode(packet) + stream.codec_context.decode(None)
        planes = [
            np.asarray(plane).reshape(plane.height, plane.line_size)[:, : plane.width].astype(int)
            for plane in frame.planes
        ]
        return extradata, bytes(packet), planes


def luma_modes(reader: ResidualReader) -> NDArray[np.int64]:
    """Intra4x4PredMode or Intra8x8PredMode of every 4x4 block."""
    rows, columns = SIZE[0] // 16, SIZE[1] // 16
    modes = reader._buffers[False, 0].macroblocks["intra_mode"].astype(int)
    return modes.reshape(rows, columns, 4, 4).swapaxes(1, 2).reshape(rows * 4, columns * 4)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("entropy", ["cabac=1", "cabac=0"])
def test_the_rest_of_the_pixels_is_a_prediction(pixel_format: str, entropy: str) -> None:
    extradata, packet, planes = encode(pixel_format, f"8x8dct=1:{entropy}")
    reader = ResidualReader(extradata)
    picture = reader.read(packet)
    modes = luma_modes(reader)
    predicted = planes[0] - picture.y
    seen = set()
    for kind, size in ((I_4X4, 4), (I_8X8, 8), (I_16X16, 16)):
        for y in range(0, SIZE[0], size):
            for x in range(0, SIZE[1], size):
                if picture.mb_type[y // 16, x // 16] != kind:
                    continue
                block = predicted[y : y + size, x : x + size]
                if size == 16:
                    # the mode itself is not kept: it must be one of the four predictions
                    assert _is_prediction(block, planes[0], y, x)
                    seen.add(("any", size))
                elif modes[y // 4, x // 4] == 0:
                    # the same along a column; for 4x4 blocks, the pixels above
                    np.testing.assert_array_equal(block, np.tile(block[0], (size, 1)))
                    if size == 4:
                        np.testing.assert_array_equal(block[0], planes[0][y - 1, x : x + 4])
                    seen.add(("vertical", size))
                elif modes[y // 4, x // 4] == 1:
                    np.testing.assert_array_equal(block, np.tile(block[:, :1], (1, size)))
                    if size == 4:
                        np.testing.assert_array_equal(block[:, 0], planes[0][y : y + 4, x - 1])
                    seen.add(("horizontal", size))
    assert seen >= {("any", 16), ("vertical", 4), ("horizontal", 4)}
    if entropy == "cabac=0":  # with arithmetic code x264 prefers the 4x4 blocks
        assert seen >= {("vertical", 8), ("horizontal", 8)}


def test_chroma_in_the_horizontal_mode() -> None:
    """With every line constant, chroma is predicted horizontally and its residual vanishes beyond the first column."""
    extradata, packet, planes = encode("yuv420p", "8x8dct=1", lines=True)
    reader = ResidualReader(extradata)
    picture = reader.read(packet)
    modes = reader._buffers[False, 0].macroblocks["chroma_mode"].reshape(SIZE[0] // 16, SIZE[1] // 16)
    assert (modes[:, 1:] == 1).any()
    for residual, pixels in ((picture.cb, planes[1]), (picture.cr, planes[2])):
        for row, column in np.argwhere(modes == 1):
            area = np.s_[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
            beside = pixels[row * 8 : row * 8 + 8, column * 8 - 1 : column * 8]
            np.testing.assert_array_equal(residual[area], pixels[area] - beside)


def _is_prediction(block: NDArray[np.int64], pixels: NDArray[np.int64], y: int, x: int) -> bool:
    """Whether a 16x16 block is a vertical, horizontal, DC or plane prediction (8.3.3)."""
    candidates = [np.full((16, 16), 128)]
    above = pixels[y - 1, x : x + 16] if y else None
    beside = pixels[y : y + 16, x - 1] if x else None
    if above is not None:
        candidates += [np.tile(above, (16, 1)), np.full((16, 16), (above.sum() + 8) >> 4)]
    if beside is not None:
        candidates += [np.tile(beside[:, None], (1, 16)), np.full((16, 16), (beside.sum() + 8) >> 4)]
    if above is not None and beside is not None:
        candidates.append(np.full((16, 16), (above.sum() + beside.sum() + 16) >> 5))
        corner = pixels[y - 1, x - 1]
        across, down = np.append(corner, above), np.append(corner, beside)
        h = sum((i + 1) * (across[9 + i] - across[7 - i]) for i in range(8))
        v = sum((i + 1) * (down[9 + i] - down[7 - i]) for i in range(8))
        b, c = (5 * h + 32) >> 6, (5 * v + 32) >> 6
        row, column = np.mgrid[:16, :16]
        candidates.append(np.clip((16 * (above[15] + beside[15]) + b * (column - 7) + c * (row - 7) + 16) >> 5, 0, 255))
    return any(np.array_equal(block, candidate) for candidate in candidates)
