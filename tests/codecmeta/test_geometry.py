"""Pictures have the size, and samples the form, that FFmpeg shows: cropping by the container, changes on the way."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import codecmeta
from codecmeta.container.sample_form import read_form
from codecmeta.h264 import ResidualReader
from codecmeta.record.energy import measure_energy
from tests.codecmeta.h264.streams import extradata, packets
from tests.codecmeta.make_video import decode_all, write_video


def resize_boxes(path: Path, *, coded: tuple[int, int], shown: tuple[int, int]) -> Path:
    """Let the sample entry and the track header of an MP4 file say another size than its pictures are coded in."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"avc1", content.index(b"stsd")) + 28
    assert struct.unpack_from(">HH", content, entry) == coded
    struct.pack_into(">HH", content, entry, *shown)
    struct.pack_into(">II", content, content.index(b"tkhd") + 80, shown[0] << 16, shown[1] << 16)
    path.write_bytes(content)
    return path


def resize_elements(path: Path, *, coded: tuple[int, int], shown: tuple[int, int]) -> Path:
    """Change PixelWidth and PixelHeight of a Matroska file."""
    content = path.read_bytes()
    for name, old, new in zip((b"\xb0", b"\xba"), coded, shown, strict=True):
        size = (old.bit_length() + 7) // 8
        element = name + bytes([0x80 | size]) + old.to_bytes(size, "big")
        assert content.count(element) == 1
        content = content.replace(element, name + bytes([0x80 | size]) + new.to_bytes(size, "big"))
    path.write_bytes(content)
    return path


CODED = 160, 96


@pytest.mark.parametrize("shown", [(150, 96), (149, 83)])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_the_container_crops_within_the_last_macroblock(tmp_path: Path, shown: tuple[int, int], container: str) -> None:
    path = write_video(tmp_path / f"clip.{container}", width=CODED[0], height=CODED[1], frames=12)
    whole = codecmeta.extract(path, frames="all", motion=True, qp=True, maps=("innovation", "carried"))
    (resize_boxes if container == "mp4" else resize_elements)(path, coded=CODED, shown=shown)
    width, height = shown
    decoded = decode_all(path)
    assert {(frame.width, frame.height) for frame in decoded} == {shown}
    meta = codecmeta.extract(path, frames="all", motion=True, qp=True, maps=("innovation", "carried"))
    assert (meta.width, meta.height) == shown
    assert meta.info["signals"]["innovation"]["source"] == "bitstream"
    assert meta.info["signals"]["carried"]["along"]["source"] == "bitstream"
    assert meta.frames is not None and meta.mv is not None
    for own, frame in zip(meta.frames, decoded, strict=True):
        np.testing.assert_array_equal(own, frame.to_ndarray(format="rgb24", interpolation="BICUBIC"))
    np.testing.assert_array_equal(meta.mv, whole.mv)
    estimated = codecmeta.extract(path, frames="all", residual="motion", pixels=None, maps=("innovation", "carried"))
    assert estimated.energy_carried is not None and meta.energy_carried is not None
    assert estimated.energy_carried.shape == meta.energy_carried.shape
    # blocks that lie inside are what they are without cropping
    for name in ("energy_carried", "residual_power", "qp"):
        one, other = getattr(meta, name), getattr(whole, name)
        side = 16 if name == "qp" else meta.block
        inside = np.s_[..., : height // side, : width // side]
        if name != "energy_carried":
            np.testing.assert_array_equal(one[inside], other[inside])
        assert one.shape[-2:] == (-(-height // side), -(-width // side))


def test_border_blocks_average_what_the_container_shows(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", width=CODED[0], height=CODED[1], frames=3)
    whole, cropped = (ResidualReader(extradata(path), container_size=size) for size in (None, (149, 83)))
    for packet in packets(path):
        everything, picture = whole.read(packet), cropped.read(packet)
        planes = everything.y[:83, :149], everything.cb[:42, :75], everything.cr[:42, :75]
        for one, other in zip((picture.y, picture.cb, picture.cr), planes, strict=True):
            np.testing.assert_array_equal(one, other)
        expected = measure_energy(tuple(np.ascontiguousarray(plane) for plane in planes), block=8)
        measured = cropped.measure(packet, block=8).energy
        for name in ("power", "mean", "energy", "range"):
            np.testing.assert_allclose(getattr(measured, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("said", [(144, 96), (160, 80), (176, 96)])
def test_the_container_does_not_crop_whole_macroblocks(tmp_path: Path, said: tuple[int, int]) -> None:
    path = write_video(tmp_path / "clip.mp4", width=CODED[0], height=CODED[1], frames=12)
    resize_boxes(path, coded=CODED, shown=said)
    assert {(frame.width, frame.height) for frame in decode_all(path)} == {CODED}
    meta = codecmeta.extract(path, frames="uniform:3")
    assert (meta.width, meta.height) == CODED
    assert meta.info["signals"]["innovation"]["source"] == "bitstream"


def test_the_container_does_not_show_what_the_stream_crops(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", width=160, height=88, frames=12)
    resize_boxes(path, coded=(160, 88), shown=(154, 96))
    size = decode_all(path)[0].width, decode_all(path)[0].height
    meta = codecmeta.extract(path, frames="uniform:3")
    assert (meta.width, meta.height) == size == (160, 88)
    assert meta.info["signals"]["innovation"]["source"] == "bitstream"


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("second", ["yuv420p10le", "yuv444p"])
def test_other_samples_on_the_way_are_refused(tmp_path: Path, codec: str, second: str) -> None:
    """As another size is: the residual of 10-bit pictures is four times as large, chroma covers other blocks."""
    ending = {"libx264": "h264", "libx265": "hevc"}[codec]
    quiet = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {}
    parts = [
        write_video(tmp_path / f"{pixels}.{ending}", codec=codec, frames=8, pix_fmt=pixels, options=quiet)
        for pixels in ("yuv420p", second)
    ]
    path = tmp_path / f"mixed.{ending}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert {frame.format.name for frame in decode_all(path)} == {"yuv420p", second}
    wanted: list[dict[str, Any]] = [{}, {"pixels": None, "maps": ("innovation",)}, {"residual": "none"}]
    for options in wanted:
        with pytest.raises(codecmeta.SourceError, match=r"samples in a stream of 8-bit 4:2:0 YCbCr ones") as caught:
            codecmeta.extract(path, frames="all", **options)
        assert caught.value.code == "varying_geometry"
    whole = codecmeta.extract(parts[1], frames="all")
    assert (whole.info["stream"]["bit_depth"], whole.info["stream"]["chroma"]) == (
        (10, "4:2:0") if second == "yuv420p10le" else (8, "4:4:4")
    )


@pytest.mark.parametrize(
    ("pixels", "form"),
    [
        ("yuv420p", "8-bit 4:2:0 YCbCr"),
        ("yuvj420p", "8-bit 4:2:0 YCbCr"),
        ("yuv422p10le", "10-bit 4:2:2 YCbCr"),
        ("yuv411p", "8-bit 4:1:1 YCbCr"),
        ("yuv440p", "8-bit 4:4:0 YCbCr"),
        ("gray12le", "12-bit 4:0:0 YCbCr"),
        ("gbrp", "8-bit 4:4:4 RGB"),
        ("bgra", "8-bit 4:4:4 RGB"),
    ],
)
def test_forms_of_pixel_formats(pixels: str, form: str) -> None:
    assert str(read_form(av.VideoFormat(pixels, 16, 16))) == form


def test_errors_on_the_way_to_the_order_of_frames_count(tmp_path: Path) -> None:
    """A stream without time stamps is decoded as a whole; what is damaged beyond the sampled frames shows there."""
    path = write_video(tmp_path / "clip.h264", frames=24, options={"bf": "2"})
    good = codecmeta.extract(path, frames="0", maps=("innovation",))
    assert good.info["verdict"]["decode_errors"] == good.info["verdict"]["corrupt_pictures"] == 0
    content = bytearray(path.read_bytes())
    start = content.index(b"\0\0\1", int(good.packet_size[:12].sum()))
    content[start + 8 : start + 40] = b"\xff" * 32
    path.write_bytes(content)
    verdict = codecmeta.extract(path, frames="0", maps=("innovation",)).info["verdict"]
    assert verdict["decode_errors"] + verdict["corrupt_pictures"] > 0
    assert verdict["state"] == "damaged"
