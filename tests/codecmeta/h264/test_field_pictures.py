"""Field pictures (PAFF): a stream written here, checked against FFmpeg's decoded pixels."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.errors import BitstreamError
from codecmeta.h264 import MB_TYPE_NAMES, ResidualReader
from tests.codecmeta.h264.field_stream import (
    COLUMNS,
    ROWS,
    coded_frames,
    parameter_sets,
    pcm_field,
    predicted_field,
    random_samples,
)


@pytest.fixture(scope="module")
def stream() -> tuple[bytes, bytes, list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(5)
    samples = random_samples(rng)
    return parameter_sets() + pcm_field(samples), predicted_field(rng), samples


def decode(stream: bytes) -> list[NDArray[np.int64]]:
    with av.open(io.BytesIO(stream), format="h264") as container:
        (frame,) = container.decode(video=0)
        return [
            np.asarray(plane).reshape(plane.height, plane.line_size)[:, : plane.width].astype(int)
            for plane in frame.planes
        ]


def test_both_fields_equal_the_decoded_pixels(
    stream: tuple[bytes, bytes, list[NDArray[np.uint8]]],
) -> None:
    top, bottom, samples = stream
    decoded = decode(top + bottom)
    picture = ResidualReader().read(top + bottom)
    assert picture.structure == "field"
    assert picture.slice_types == ("I", "P")
    for plane, pixels, source in zip((picture.y, picture.cb, picture.cr), decoded, samples, strict=True):
        np.testing.assert_array_equal(pixels[0::2], source)
        np.testing.assert_array_equal(plane[0::2], source.astype(int) - 128)
    np.testing.assert_array_equal(picture.y[1::2], decoded[0][1::2] - decoded[0][0::2])
    # no chroma is coded, its prediction from the other parity lies between lines (8.4.1.4)
    assert not picture.cb[1::2].any()
    assert not picture.cr[1::2].any()
    assert np.abs(picture.y[1::2]).max() > 10
    names = np.array(MB_TYPE_NAMES)[picture.mb_type]
    np.testing.assert_array_equal(names[0::2], "I_PCM")
    assert names[1, 0] == "P_Skip"
    assert (names[1::2].reshape(-1)[1:] == "P_16x16").all()


def test_fields_may_come_in_two_packets(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    top, bottom, _ = stream
    together = ResidualReader().read(top + bottom)
    apart = ResidualReader().read([top, bottom])
    np.testing.assert_array_equal(apart.y, together.y)


def test_one_field_alone_is_no_picture(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    with pytest.raises(BitstreamError, match="bottom field"):
        ResidualReader().read(stream[0])


def test_measure_equals_read(stream: tuple[bytes, bytes, list[NDArray[np.uint8]]]) -> None:
    top, bottom, _ = stream
    moments = ResidualReader().measure(top + bottom, block=8)
    picture = ResidualReader().read(top + bottom)
    blocks = picture.y.astype(np.int64).reshape(ROWS * 4, 8, COLUMNS * 2, 8)
    np.testing.assert_array_equal(moments.energy.mean[0], blocks.sum((1, 3)) / 64)


def test_a_stream_of_field_pairs_and_frames_equals_the_decoded_pixels() -> None:
    """Predicted from the same field of the nearest reference: decoded minus reference is the residual."""
    frames = coded_frames(20)
    with av.open(io.BytesIO(b"".join(b"".join(pictures) for pictures in frames)), format="h264") as container:
        luma = [frame.to_ndarray()[: 32 * ROWS].astype(int) for frame in container.decode(video=0)]
    assert len(luma) == len(frames)
    reader = ResidualReader()
    reference, structures = 0, []
    for index, pictures in enumerate(frames):
        picture = reader.read(b"".join(pictures))
        structures.append(picture.structure)
        if index % 8:
            np.testing.assert_array_equal(picture.y, luma[index] - luma[reference])
        if index % 8 not in (2, 4, 5):
            reference = index
    assert (structures.count("field"), structures.count("frame")) == (18, 2)
