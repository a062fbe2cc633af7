"""Frames that a record holds as JPEG: written, read in part, decoded when they are needed, and refused if hostile."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

import codecmeta
from codecmeta import MetaFormatError, VideoMeta
from codecmeta.batch.output_folder import read_run
from codecmeta.batch.verification import Check, verify_record
from codecmeta.errors import UsageError
from codecmeta.record import jpeg, npz
from codecmeta.record.dataset import Entry
from codecmeta.record.limits import Limits
from codecmeta.record.options import Options


@pytest.fixture(scope="module")
def pair(data: Path) -> tuple[VideoMeta, VideoMeta]:
    """Extract the same frames as pixels and as JPEG."""
    raw, coded = (
        codecmeta.extract(data / "event_h264.mp4", frames="uniform:4", residual="none", pixels=96, jpeg=quality)
        for quality in (None, "auto")
    )
    return raw, coded


def differ(a: Any, b: Any) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def test_frames_are_close_to_the_pixels(pair: tuple[VideoMeta, VideoMeta]) -> None:
    raw, coded = pair
    assert raw.frames is not None and coded.frames is not None
    assert coded.frames.dtype == np.uint8
    assert coded.frames.shape == raw.frames.shape
    assert 0 < differ(raw.frames, coded.frames) < 3
    # and not to another frame, or to another order of the channels
    assert differ(raw.frames, coded.frames[..., ::-1]) > 4
    assert coded.frames_jpeg is not None
    assert coded.frames_jpeg.size < raw.frames.size / 4
    assert raw.frames_jpeg is None


def test_it_is_what_any_decoder_reads(pair: tuple[VideoMeta, VideoMeta], tmp_path: Path) -> None:
    """By the plain arrays of the file, without this package."""
    pair[1].save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert int(arrays["schema"]) == 3
        assert "frames" not in arrays
        data, offset = arrays["frames_jpeg"], arrays["frames_jpeg_offset"]
    picture = cv2.imdecode(data[offset[2] : offset[3]], cv2.IMREAD_COLOR)
    assert picture is not None
    assert pair[1].frames is not None
    assert np.array_equal(picture[..., ::-1], pair[1].frames[2])
    pair[0].save(tmp_path / "raw.npz")
    with np.load(tmp_path / "raw.npz", allow_pickle=False) as arrays:
        assert int(arrays["schema"]) == 2, "older versions read what holds no JPEG"


def test_frames_are_decoded_when_they_are_read(
    pair: tuple[VideoMeta, VideoMeta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair[1].save(tmp_path / "a.npz")
    decoded = 0
    original = jpeg.decode_frames

    def decode(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return original(*arguments)

    monkeypatch.setattr("codecmeta.record.meta.decode_frames", decode)
    record = codecmeta.load(tmp_path / "a.npz")
    assert record.has_frames and "frames_jpeg" in repr(record) and "texture" in record.density_maps
    assert record.nbytes < pair[0].nbytes / 2
    record.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    (column,) = codecmeta.open_dataset(tmp_path, columns=("frame_type",))[:1]
    assert not column.has_frames and column.frames is None
    assert decoded == 0
    frames = record.frames
    assert frames is not None and frames is record.frames
    assert decoded == 1
    (column,) = codecmeta.open_dataset(tmp_path, columns=("frames",))[:1]
    assert np.array_equal(column.frames, frames)
    copied = pickle.loads(pickle.dumps(record))
    assert np.array_equal(copied.frames, frames)
    copied.save(tmp_path / "c.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def test_copies_with_other_pixels(pair: tuple[VideoMeta, VideoMeta], tmp_path: Path) -> None:
    assert pair[1].frames is not None
    other = replace(pair[1], frames=255 - pair[1].frames)
    assert other.frames_jpeg is None
    other.save(tmp_path / "a.npz")
    assert np.array_equal(codecmeta.load(tmp_path / "a.npz").frames, other.frames)
    none = replace(pair[1], frames=None, frames_jpeg=None, frames_jpeg_offset=None)
    assert none.frames is None and not none.has_frames and none.with_jpeg(50) is none


def mean_quantiser(picture: Any) -> float:
    """Mean step of the first table (luma) of a JPEG: B.2.4.1."""
    content = picture.tobytes()
    at = content.index(b"\xff\xdb") + 5
    return float(np.mean(list(content[at : at + 64])))


def test_noise_is_coded_in_fewer_bytes() -> None:
    """Pictures that quality 90 leaves large are coded coarser, down to 75; all others as with 90."""
    random = np.random.default_rng(0)
    smooth = np.repeat(np.arange(96, dtype=np.uint8), 96 * 3).reshape(96, 96, 3)
    noise = random.integers(0, 256, (96, 96, 3), np.uint8)
    frames = np.stack([smooth, noise])
    data, offset = jpeg.encode_frames(frames, quality="auto", most_bytes=8000)
    fine, fine_offset = jpeg.encode_frames(frames, quality=90)
    least, least_offset = jpeg.encode_frames(frames, quality="auto", most_bytes=0)
    assert np.array_equal(data[: offset[1]], fine[: fine_offset[1]])
    assert offset[2] - offset[1] <= 8000 < fine_offset[2] - fine_offset[1]
    # that of quality 75 is half of the tables in annex K
    steps = [mean_quantiser(one) for one in (fine[fine_offset[1] :], data[offset[1] :], least[least_offset[1] :])]
    assert steps[0] < steps[1] <= steps[2]
    assert steps[2] == pytest.approx(57.625 / 2, rel=0.02)
    # larger pictures may take as many bytes per pixel
    large = np.tile(noise, (1, 8, 8, 1))[:, :768, :683]
    _, ends = jpeg.encode_frames(large, quality="auto", most_bytes=8000)
    assert ends[1] > 16_000


def test_records_with_jpeg_are_compressed(pair: tuple[VideoMeta, VideoMeta], tmp_path: Path) -> None:
    """By default, so that their maps do not take most of the file; and others are not."""
    kinds = {}
    for name, record, deflate in (("raw", pair[0], None), ("coded", pair[1], None), ("plain", pair[1], False)):
        record.save(tmp_path / name, deflate=deflate)
        with zipfile.ZipFile(tmp_path / name) as archive:
            kinds[name] = {entry.filename: entry.compress_type for entry in archive.infolist()}
    assert set(kinds["raw"].values()) == set(kinds["plain"].values()) == {zipfile.ZIP_STORED}
    # the pictures would not become smaller
    assert kinds["coded"].pop("frames_jpeg.npy") == zipfile.ZIP_STORED
    assert set(kinds["coded"].values()) == {zipfile.ZIP_DEFLATED}


def forge(meta: VideoMeta, **arrays: Any) -> VideoMeta:
    """Copy a record with arrays that no check has seen."""
    copy = replace(meta, frames=None)
    copy.__dict__.update(arrays)
    return copy


def test_hostile_pictures_are_refused(pair: tuple[VideoMeta, VideoMeta], tmp_path: Path) -> None:
    good = pair[1]
    assert good.frames_jpeg is not None and good.frames_jpeg_offset is not None
    data, offset = good.frames_jpeg, good.frames_jpeg_offset
    at = data.tobytes().index(b"\xff\xc0")
    large, png, bits = data.copy(), data.copy(), data.copy()
    large[at + 5 : at + 9] = (0xFF, 0xFF, 0xFF, 0xFF)
    png[:8] = np.frombuffer(b"\x89PNG\r\n\x1a\n", np.uint8)
    bits[at + 4] = 12
    every = np.concatenate([large[: offset[1]]] * 4)
    for change, message in (
        ({"frames_jpeg": large}, "2 sizes"),
        ({"frames_jpeg": every, "frames_jpeg_offset": offset[1] * np.arange(5)}, "expand to 51538"),
        ({"frames_jpeg": png}, "not a JPEG"),
        ({"frames_jpeg": bits}, "8-bit"),
        ({"frames_jpeg_offset": offset[::-1].copy()}, "rise from 0"),
        ({"frames_jpeg_offset": offset * 2}, "rise from 0"),
        ({"frames_jpeg_offset": np.zeros_like(offset)}, "rise from 0"),
        ({"frames_jpeg_offset": None}, "stored together"),
        ({"frames": pair[0].frames}, "stored twice"),
    ):
        bad = forge(good, **change)
        arrays = {name: array for name in npz.FIELDS if (array := bad.stored(name)) is not None}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(npz, "check", lambda *_: None)
            npz.write(tmp_path / "bad.npz", bad.info, arrays, deflate=False)
        with pytest.raises(MetaFormatError, match=message) as caught:
            codecmeta.load(tmp_path / "bad.npz")
        assert caught.value.field in ("frames_jpeg", "frames_jpeg_offset", "frames")


def test_what_follows_the_header_is_garbage(pair: tuple[VideoMeta, VideoMeta]) -> None:
    """Either pixels of the announced size, or an error that names the record; never anything else."""
    good = pair[1]
    assert good.frames_jpeg is not None and good.frames is not None
    random = np.random.default_rng(0)
    for _ in range(50):
        data = good.frames_jpeg.copy()
        data[random.integers(0, data.size, 200)] = random.integers(0, 256, 200)
        bad = forge(good, frames_jpeg=data)
        try:
            frames = bad.frames
        except MetaFormatError as error:
            assert error.field == "frames_jpeg"
        else:
            assert frames is not None and frames.shape == good.frames.shape


@pytest.mark.parametrize("quality", [0, 101, "best"])
def test_options(quality: Any) -> None:
    with pytest.raises(UsageError, match="jpeg="):
        Options(jpeg=quality)
    with pytest.raises(UsageError, match="where pixels are cached"):
        Options(jpeg=90, pixels=None)
    digests = {Options(jpeg=quality).digest() for quality in (90, 91, "auto", None)}
    assert len(digests) == 4
    assert "jpeg" not in Options().describe()


def test_the_command_and_a_verification(data: Path, tmp_path: Path) -> None:
    command = ["extract", str(data / "event_h264.mp4"), "--out", str(tmp_path), "--frames", "uniform:3", "--jobs", "0"]
    for text, code in (("jpeg:48", 0), ("48:jpeg", 2), ("jpeg:x", 2), ("webp", 2)):
        result = CliRunner().invoke(app, [*command, "--pixels", text, "--residual", "none"])
        assert result.exit_code == code, result.output
    meta = tmp_path / "event_h264.mp4.npz"
    record = codecmeta.load(meta)
    assert record.frames is not None and min(record.frames.shape[1:3]) == 48
    check = Check(
        meta=str(meta),
        entry=Entry("a", str(meta)),
        source=str(data / "event_h264.mp4"),
        deep=True,
        limits=Limits(),
    )
    assert verify_record(check).code == ""
    run = read_run(tmp_path)
    assert run is not None and run["options"]["deflate"] is True
    assert CliRunner().invoke(app, [*command, "--pixels", "jpeg:48", "--residual", "none"]).exit_code == 0
    result = CliRunner().invoke(app, [*command, "--pixels", "jpeg:48", "--residual", "none", "--no-deflate"])
    assert result.exit_code == 2 and "deflate True, now False" in result.output
    forge(record, frames_jpeg=None, frames_jpeg_offset=None, frames=255 - record.frames).with_jpeg(90).save(meta)
    assert verify_record(check).code == "differs"
    assert CliRunner().invoke(app, ["show", str(meta)]).exit_code == 0
