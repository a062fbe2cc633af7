"""Frames without a video: arrays and folders of pictures, read by the proxy."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import codecmeta
from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.folder_status import read_status
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.verification import find_checks, verify_record
from codecmeta.errors import SourceError, UsageError
from codecmeta.picture_folder import PictureFolder
from codecmeta.picture_sequence import extract_pictures
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options
from codecmeta.residual.proxy import SETTINGS


@pytest.fixture(scope="module")
def frames(data: Path) -> NDArray[np.uint8]:
    """Return a moving scene, uint8 (60, H, W, 3)."""
    with av.open(str(data / "objects_vp9.webm")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def encode_pair(pictures: NDArray[np.uint8]) -> list[int]:
    """Bytes of the packets of two pictures, by the settings that the proxy names and nothing of its code."""
    file = io.BytesIO()
    with av.open(file, "w", format="h264") as output:
        stream = output.add_stream("libx264", rate=Fraction(25), options=dict(SETTINGS))
        stream.height, stream.width = (side // 2 * 2 for side in pictures.shape[1:3])
        stream.pix_fmt = "yuv420p"
        sizes = []
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(format="yuv420p", interpolation="BICUBIC")
            sizes += [packet.size for packet in stream.encode(frame)]
        sizes += [packet.size for packet in stream.encode()]
    return sizes


def test_record_of_an_array(frames: NDArray[np.uint8], tmp_path: Path) -> None:
    # even sides, at which the encoder takes them as they are
    frames = frames[:, :160, :240]
    record = codecmeta.from_frames(frames, 30.0, sampling=(0, 10, 59), pixels=64, name="scene")
    assert record.frame_pts.tolist() == [0, 10, 59]
    assert record.frame_seconds.tolist() == pytest.approx([0, 10 / 30, 59 / 30])
    assert record.frame_type.tolist() == ["I", "P", "P"]
    # the first frame, and twice a predecessor and a frame
    assert record.packet_pts.tolist() == [0, 9, 10, 58, 59]
    assert record.packet_key.tolist() == [True, True, False, True, False]
    assert record.frame_packet.tolist() == [0, 2, 4]
    assert record.packet_size[1:3].tolist() == encode_pair(frames[9:11])
    assert record.packet_size[1:3].tolist() != encode_pair(frames[10:12])
    assert record.gop_packet_size().tolist() == pytest.approx(
        [record.packet_size[0], record.packet_size[1:3].mean(), record.packet_size[3:].mean()]
    )
    assert record.info["signals"]["packets"] == record.info["signals"]["innovation"] == {"source": "proxy"}
    assert record.frames is not None
    assert min(record.frames.shape[1:3]) == 64
    record.save(tmp_path / "a.npz")
    again = codecmeta.load(tmp_path / "a.npz")
    assert again.info == json.loads(json.dumps(record.info))
    assert np.array_equal(again.density((4, 4)), record.density((4, 4)))


def test_residual_is_that_of_a_re_encoded_video(frames: NDArray[np.uint8], data: Path) -> None:
    """As the proxy source has it of the pictures of a VP9 file, but for the way over RGB."""
    wanted = (5, 20, 40)
    video = codecmeta.extract(data / "objects_vp9.webm", frames=wanted, residual="proxy", pixels=None)
    record = codecmeta.from_frames(frames, 30.0, sampling=wanted, pixels=None)
    assert video.energy_innovation is not None
    assert record.energy_innovation is not None
    assert record.energy_innovation.shape == video.energy_innovation.shape
    table = np.corrcoef(record.energy_innovation.reshape(3, -1), video.energy_innovation.reshape(3, -1))[:3, 3:]
    # at least 0.87 with libswscale 9, 0.77 with libswscale 8
    assert table.diagonal().min() > 0.75
    # the negative control: of another frame it is less like
    assert (table < table.diagonal()[:, None]).sum() == 6


def test_what_a_frame_is(frames: NDArray[np.uint8]) -> None:
    for wrong in ([], frames[:, :, :, 0], frames.astype(np.float32), [frames[0], frames[1][:-2]]):
        with pytest.raises(UsageError, match="allowed"):
            codecmeta.from_frames(wrong, 25.0)
    for rate in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="fps"):
            codecmeta.from_frames(frames[:2], rate)
    with pytest.raises(SourceError, match="pixels; allowed are 100"):
        codecmeta.from_frames(frames[:2], 25.0, limits=Limits(pixels=100))
    with pytest.raises(SourceError, match="the record of 2 frames"):
        codecmeta.from_frames(frames[:2], 25.0, limits=Limits(bytes=100))
    one = codecmeta.from_frames([frames[0]], 25.0, maps=(), pixels=None)
    assert (len(one.packet_size), one.energy_innovation) == (1, None)


@pytest.fixture
def folder(frames: NDArray[np.uint8], tmp_path: Path) -> Iterator[Path]:
    """12 pictures, numbered without zeros in front."""
    place = tmp_path / "clips" / "scene"
    place.mkdir(parents=True)
    for number in range(12):
        cv2.imwrite(str(place / f"frame_{number}.png"), cv2.cvtColor(frames[number], cv2.COLOR_RGB2BGR))
    yield place


def test_a_folder_of_pictures(folder: Path, frames: NDArray[np.uint8]) -> None:
    """In the order of their numbers, and what the array gives."""
    options = Options(frames=(0, 9, 11), pixels=2000, fps=10.0)
    record = extract_pictures(folder, options, Limits())
    array = codecmeta.from_frames(frames[:12], 10.0, sampling=(0, 9, 11), pixels=2000)
    assert np.array_equal(record.frames, frames[[0, 9, 11]])
    assert np.array_equal(record.packet_size, array.packet_size)
    assert np.array_equal(record.energy_innovation, array.energy_innovation)
    assert record.info["stream"]["fps"] == 10.0
    assert record.info["source"]["name"] == "scene"


def run(source: str, out: Path) -> list[Outcome]:
    seen: list[Outcome] = []
    extract_inputs(
        find_inputs([source], out=out, stdin=None),
        out,
        options=Options(frames="uniform:2", pixels=None),
        engine=SerialEngine(),
        report=seen.append,
    )
    return seen


def test_folders_of_pictures_in_a_batch(folder: Path, tmp_path: Path) -> None:
    """One that is named is a video; one below a folder of videos is not, nor one that holds a video."""
    out = tmp_path / "meta"
    (done,) = run(str(folder), out)
    assert (done.status, done.meta, done.residual) == ("done", str(out / "scene.npz"), "proxy")
    assert [outcome.status for outcome in run(str(folder), out)] == ["kept"]
    assert [outcome.status for outcome in run(str(folder.parent / "*"), out)] == ["kept"]
    (check,) = find_checks(out, videos=None, deep=True, limits=Limits())
    assert verify_record(check).status == "sound"
    assert read_status(out).done == 1
    (folder / "frame_11.png").write_bytes((folder / "frame_0.png").read_bytes())
    assert verify_record(check).code == "stale"
    assert [outcome.status for outcome in run(str(folder), out)] == ["done"]
    with pytest.raises(UsageError, match="no file with the extension of a video"):
        find_inputs([str(folder.parent)], out=out, stdin=None)
    (folder / "clip.mp4").touch()
    (named,) = find_inputs([str(folder)], out=out, stdin=None)
    assert named.place == "clip.mp4.npz"


def test_pictures_that_cannot_be_read(folder: Path, frames: NDArray[np.uint8]) -> None:
    pictures = PictureFolder(folder, Limits())
    assert len(pictures) == 12
    cv2.imwrite(str(folder / "frame_3.png"), frames[3][:-16])
    with pytest.raises(SourceError, match="others are") as caught:
        [pictures[number] for number in (2, 3)]
    assert caught.value.code == "varying_geometry"
    (folder / "frame_4.png").write_bytes((folder / "frame_4.png").read_bytes()[:40])
    (folder / "frame_5.png").write_text("#EXTM3U\nframe_0.png\n")
    (folder / "frame_6.png").unlink()
    for number, code in ((4, "damaged"), (5, "damaged"), (6, "not_a_file")):
        with pytest.raises(SourceError) as caught:
            pictures[number]
        assert caught.value.code == code
    with pytest.raises(SourceError, match="allowed are 99 pixels"):
        PictureFolder(folder, Limits(pixels=99))[0]
    with pytest.raises(SourceError, match="contains no pictures"):
        PictureFolder(folder.parent, Limits())
