"""Vectors are those that FFmpeg exports, and the pictures they point into are those that the stream was made of."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from codecmeta.decoding import side_data
from codecmeta.errors import BitstreamError
from codecmeta.h264.motion import FrameMotion, MotionArrays, MotionReader
from codecmeta.h264.reader import CodedPicture, ResidualReader
from tests.codecmeta.h264.streams import CLIPS, extradata, packets

WIDTH, HEIGHT = 128, 96


def render(index: int) -> NDArray[np.uint8]:
    """Three textures that take turns and drift apart, so that the best reference is seldom the last picture."""
    rng = np.random.default_rng(index % 3)
    texture = np.kron(rng.integers(0, 256, (40, 48)), np.ones((4, 4))).astype(np.uint8)
    y, x = 20 + index // 3 % 20, 30 + (index * (1 + index % 3)) % 30
    image = texture[y : y + HEIGHT, x : x + WIDTH].copy()
    image[30:60, 2 * index % 90 : 2 * index % 90 + 30] = 200
    return image


def encode(path: Path, settings: str, *, frames: int = 40) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"preset": "slow", "x264-params": f"threads=1:crf=20:scenecut=0:{settings}"}
        for index in range(frames):
            image = np.repeat(render(index)[..., None], 3, axis=2)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def decode(path: Path) -> list[av.VideoFrame]:
    """Frames in the order of their packets, with their vectors."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_type, context.thread_count, context.copy_opaque = "NONE", 1, True
        context.options = {"export_side_data": "mvs"}
        shown: dict[int, av.VideoFrame] = {}
        for number, packet in enumerate(container.demux(stream)):
            if packet.size:
                packet.opaque = (number,)
            shown |= {frame.opaque[0]: frame for frame in packet.decode()}
    return [shown[number] for number in sorted(shown)]


def read_motion(path: Path) -> list[tuple[FrameMotion, MotionArrays, CodedPicture, NDArray[np.int16]]]:
    """Motion of all frames in the order of their packets, and their vectors as a table."""
    reader = ResidualReader(extradata(path), motion=True)
    following = MotionReader(reader)
    found = []
    for packet in packets(path):
        frame = following.follow(packet)
        following.prepare(frame)
        coded = reader.decode(packet)
        arrays = following.derive(frame, coded)
        found.append((frame, arrays, coded, following.list_vectors(arrays, coded)))
    return found


def lay_out(table: NDArray[np.int16] | None, columns: int, rows: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which 4x4 blocks a table covers, by list, and their vectors."""
    covered = np.zeros((2, rows, columns), np.bool_)
    vectors = np.zeros((2, rows, columns, 2), np.int64)
    for x, y, w, h, dx, dy, direction in () if table is None else table.tolist():
        part = int(direction > 0), slice(y // 4, (y + h) // 4), slice(x // 4, (x + w) // 4)
        assert not covered[part].any()
        covered[part] = True
        vectors[part] = dx, dy
    return covered, vectors


def compare(path: Path, *, tampered: bool = False) -> tuple[int, int]:
    """Rows of FFmpeg's tables that were found, and those that say something else."""
    same = different = 0
    for frame, (_, arrays, coded, table) in zip(decode(path), read_motion(path), strict=True):
        columns, rows = 4 * coded.sequence.width_mbs, 4 * coded.sequence.height_mbs
        exported = side_data.vectors(frame)
        whole, _ = lay_out(exported, columns, rows)
        covered, vectors = lay_out(table, columns, rows)
        used = arrays.reference.reshape(2, rows, columns) >= 0
        assert np.array_equal(used, covered)
        assert (whole | ~used).all()
        if tampered:
            vectors[0, ::2, ::2, 0] += 1
        for x, y, _w, _h, dx, dy, direction in () if exported is None else exported.tolist():
            at = int(direction > 0), y // 4, x // 4
            # FFmpeg gives the first of several vectors of an 8x8 block, and a zero for a list that is not used
            expected = tuple(vectors[at]) if used[at] else (0, 0)
            same += expected == (dx, dy)
            different += expected != (dx, dy)
    return same, different


@pytest.mark.parametrize("name", sorted(p.name for p in CLIPS.iterdir() if p.suffix in (".mp4", ".mkv", ".h264")))
def test_vectors_of_shipped_clips_are_those_of_ffmpeg(name: str) -> None:
    if "mbaff" in name:
        with pytest.raises(BitstreamError, match="fields"):
            read_motion(CLIPS / name)
        return
    same, different = compare(CLIPS / name)
    assert different == 0
    assert same > 100 or name == "all_intra.mp4"


SETTINGS = {
    "spatial": "direct=spatial:ref=4:bframes=3:b-pyramid=normal:b-adapt=0",
    "temporal": "direct=temporal:ref=4:bframes=3:b-pyramid=normal:b-adapt=0",
    "temporal, variable length": "direct=temporal:cabac=0:ref=3:bframes=2:weightb=0:b-adapt=0",
    "strict pyramid, open GoPs": "direct=auto:ref=5:bframes=5:b-pyramid=strict:open-gop=1:keyint=12:b-adapt=0",
    "slices": "direct=temporal:ref=3:bframes=3:slices=3:b-adapt=0",
    "weights": "weightp=2:ref=6:bframes=2:b-adapt=0",
    "small partitions": "ref=2:bframes=2:partitions=all:8x8dct=0:subme=9:crf=8",
    "no B, order by number": "bframes=0:ref=16",
    "many numbers": "bframes=1:ref=2:keyint=infinite",
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_vectors_of_encodings_are_those_of_ffmpeg(tmp_path: Path, settings: str) -> None:
    path = encode(tmp_path / "clip.mp4", settings, frames=60 if "infinite" in settings else 30)
    same, different = compare(path)
    assert different == 0
    assert same > 1000
    assert compare(path, tampered=True)[1] > 100


@pytest.mark.parametrize("name", ["derived/bedroom_h264_cavlc_multislice.mp4", "talking_head_carphone_h264.mp4"])
def test_vectors_of_real_clips_are_those_of_ffmpeg(clips: Path, name: str) -> None:
    same, different = compare(clips / name)
    assert different == 0
    assert same > 30_000


def predict(
    samples: list[NDArray[np.int64]], numbers: NDArray[np.int64], vectors: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Luma prediction of a picture whose vectors are whole samples.

    Args:
        samples: decoded pictures.
        numbers: (2, rows, columns), which of them each 4x4 block is predicted from, -1 for none.
        vectors: (2, rows, columns, 2), in whole samples.

    Returns:
        Where there is a prediction, and what it is.
    """
    height, width = samples[0].shape
    total, count = np.zeros((height, width), np.int64), np.zeros((height, width), np.int64)
    rows, columns = np.mgrid[:height, :width]
    for motion_list in range(2):
        number = np.kron(numbers[motion_list], np.ones((4, 4), np.int64))
        dx, dy = (np.kron(vectors[motion_list, ..., k], np.ones((4, 4), np.int64)) for k in range(2))
        y, x = np.clip(rows + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)
        stack = np.stack(samples)
        total += np.where(number >= 0, stack[np.maximum(number, 0), y, x], 0)
        count += number >= 0
    return count > 0, np.where(count == 2, (total + 1) >> 1, total)


@pytest.mark.parametrize("direct", ["spatial", "temporal"])
def test_prediction_from_the_pictures_named_plus_residual_is_the_decoded_picture(tmp_path: Path, direct: str) -> None:
    """Without loop filter and weights, in whole samples; another picture of the same lists gives something else."""
    settings = f"direct={direct}:ref=5:bframes=3:b-pyramid=normal:b-adapt=0:weightp=0:weightb=0:no-deblock=1:subme=0"
    path = encode(tmp_path / "clip.mp4", settings)
    decoded = [frame.to_ndarray()[:HEIGHT].astype(np.int64) for frame in decode(path)]
    reader, places = ResidualReader(extradata(path)), Counter[int]()
    checked = wrong = other = 0
    for index, ((_, arrays, coded, table), packet) in enumerate(zip(read_motion(path), packets(path), strict=True)):
        rows, columns = 4 * coded.sequence.height_mbs, 4 * coded.sequence.width_mbs
        _, vectors = lay_out(table, columns, rows)
        numbers = np.kron(arrays.picture.reshape(2, rows // 2, columns // 2), np.ones((2, 2), np.int64)) - 1
        numbers[numbers < 0] = -1
        assert numbers.max() < len(decoded)
        assert not (numbers == index).any()
        residual = reader.read(packet).y
        whole = ~(vectors & 3).any(axis=(0, 3))
        numbers[:, ~whole] = -1
        known, prediction = predict(decoded, numbers, vectors >> 2)
        found = np.clip(prediction + residual, 0, 255)
        checked += int(known.sum())
        wrong += int((found != decoded[index])[known].sum())
        shifted = np.where(numbers >= 0, (numbers + 1) % len(decoded), -1)
        _, prediction = predict(decoded, shifted, vectors >> 2)
        other += int((np.clip(prediction + residual, 0, 255) != decoded[index])[known].sum())
        places += Counter(arrays.reference[arrays.reference >= 0].tolist())
    assert wrong == 0
    assert checked > 20 * HEIGHT * WIDTH
    assert other > checked // 4
    assert sum(places[ref] for ref in range(1, 8)) > 1000
