"""Which source each frame is read from, and what carries to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from codecmeta import SourceError, extract
from tests.codecmeta.make_video import write_video


def test_a_corrupt_packet_is_read_from_the_next_source(data: Path, tmp_path: Path) -> None:
    """Noise in the middle of one P picture: the bitstream refuses it, the record says who stood in."""
    whole = extract(data / "event_h264.mp4", frames="all", pixels=None, maps=("innovation",))
    target = int(np.flatnonzero(whole.packet_size > 800)[-1])
    with av.open(str(data / "event_h264.mp4")) as source:
        position = [packet.pos for packet in source.demux(video=0) if packet.size][target]
    content = bytearray((data / "event_h264.mp4").read_bytes())
    assert position is not None
    for at in range(position + 200, position + int(whole.packet_size[target]), 3):
        content[at] ^= 0x5A
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    frame = int(np.flatnonzero(whole.frame_packet == target)[0])
    meta = extract(path, frames=[frame - 1, frame], pixels=None, maps=("innovation",))
    signal = meta.info["signals"]["innovation"]
    assert signal["source"] == "mixed"
    assert signal["per_frame"] == ["bitstream", "motion"]
    assert signal["reasons"][0]["frames"] == [1]
    assert "bitstream: slice 0, macroblock" in signal["reasons"][0]["reason"]
    assert meta.mb_bits is None
    for pixels in (None, 64):
        with pytest.raises(SourceError, match="macroblock"):
            extract(path, frames=[frame - 1, frame], pixels=pixels, maps=("innovation",), residual="bitstream")


def overwrite(source: Path, path: Path, packets: list[int] | None = None) -> Path:
    """Write a copy whose packets, or some of them, are noise after the headers of their NAL units."""
    with av.open(str(source)) as opened:
        places = [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(7)
    for number in range(len(places)) if packets is None else packets:
        position, size = places[number]
        assert position is not None
        at = position
        while at < position + size:
            length = int.from_bytes(content[at : at + 4], "big")
            content[at + 6 : at + 4 + length] = rng.bytes(length - 2)
            at += 4 + length
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ["pan_hevc.mp4", "still_h264.mp4"])
@pytest.mark.parametrize("options", [{"maps": ("innovation",), "pixels": None}, {"residual": "none"}])
def test_nothing_decoded_is_an_error(data: Path, tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    noise = overwrite(data / name, tmp_path / name)
    # FFmpeg 7 takes one of the HEVC pictures for readable
    refusals = r"none of 6 frames gives a picture|5 of 6 frames are not decoded|no source has the residual"
    with pytest.raises(SourceError, match=refusals) as caught:
        extract(noise, frames="uniform:6", **options)
    assert caught.value.code == "damaged"
    assert len(extract(data / name, frames="uniform:6", **options).frame_pts) == 6


@pytest.mark.parametrize("options", [{}, {"residual": "none"}, {"maps": ("innovation", "carried")}])
def test_a_frame_without_a_picture_is_left_out_with_its_row_only(tmp_path: Path, options: dict[str, Any]) -> None:
    """Never with the pixels of all others; and many are no record but an error."""
    source = write_video(tmp_path / "b.mp4", frames=40, options={"bf": "1", "b-pyramid": "0", "sc_threshold": "0"})
    whole = extract(source, frames="all", **options)
    lost = [int(packet) for packet in whole.frame_packet[whole.frame_type == "B"]]
    one = extract(overwrite(source, tmp_path / "one.mp4", lost[:2]), frames="all", **options)
    assert whole.frames is not None and one.frames is not None
    kept = ~np.isin(whole.frame_packet, lost[:2])
    assert np.array_equal(one.frames, whole.frames[kept])
    assert np.array_equal(one.frame_pts, whole.frame_pts[kept])
    assert one.info["verdict"]["missing_frames"] == 2
    assert one.info["verdict"]["state"] == "damaged"
    assert "2 of 40 frames are omitted" in one.info["extraction"]["warnings"][0]
    with pytest.raises(SourceError, match=r"\d+ of 40 frames are not decoded"):
        extract(overwrite(source, tmp_path / "many.mp4", lost[:8]), frames="all", **options)


@pytest.mark.parametrize("pixels", [None, 64])
def test_a_damaged_hevc_picture_lacks_its_residual_only(data: Path, tmp_path: Path, pixels: int | None) -> None:
    """Nothing else reads the residual of HEVC; many such pictures are no record but an error."""
    source = data / "pan_hevc.mp4"
    whole = extract(source, frames="all", pixels=pixels)
    # nothing refers to the last picture in decode order
    lost = int(whole.frame_packet.max())
    one = extract(overwrite(source, tmp_path / "one.mp4", [lost]), frames="all", pixels=pixels)
    assert one.info["verdict"]["state"] == "damaged"
    assert whole.residual_power is not None and one.residual_power is not None
    rows = np.flatnonzero(np.isin(whole.frame_packet, one.frame_packet))
    row = int(np.flatnonzero(whole.frame_packet == lost)[0])
    if pixels is None or row in rows:
        assert one.info["signals"]["innovation"]["unknown_frames"] == [row]
        assert any(f"1 of {len(rows)} frames are damaged" in text for text in one.info["extraction"]["warnings"])
    else:
        assert one.info["verdict"]["missing_frames"] == 1
    kept = rows != row
    assert np.array_equal(one.residual_power[kept], whole.residual_power[rows[kept]])
    assert kept.sum() == len(whole.frame_packet) - 1
    with pytest.raises(SourceError, match="no source has the residual"):
        extract(tmp_path / "one.mp4", frames="all", pixels=None, residual="bitstream")
    many = overwrite(source, tmp_path / "many.mp4", list(range(1, 15)))
    with pytest.raises(SourceError, match="no source has the residual") as caught:
        extract(many, frames="all", pixels=None)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("maps", [("innovation",), ("innovation", "carried")])
def test_a_corrupt_packet_among_frames_whose_samples_nobody_asked_for(tmp_path: Path, maps: tuple[str, ...]) -> None:
    """Decoding without the loop filter is begun again with it when a picture needs the `motion` source."""
    options = {"crf": "30", "bf": "0", "preset": "veryfast", "g": "30"}
    source = write_video(tmp_path / "whole.mp4", frames=16, width=128, height=96, options=options)
    whole = extract(source, frames="all", pixels=None, maps=maps, motion=True)
    with av.open(str(source)) as opened:
        positions = [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    position, size = positions[9]
    for at in range(position + size // 2, position + size):
        content[at] ^= 0x5A
    path = tmp_path / "damaged.mp4"
    path.write_bytes(content)
    meta = extract(path, frames="all", pixels=None, maps=maps, motion=True)
    shown = extract(path, frames="all", maps=maps, motion=True)
    assert meta.info["signals"]["innovation"]["per_frame"][8:11] == ["bitstream", "motion", "bitstream"]
    for name in (*(f"energy_{name}" for name in maps), "mv", "mv_offset"):
        np.testing.assert_array_equal(getattr(meta, name), getattr(shown, name))
        assert not np.array_equal(getattr(meta, name), getattr(whole, name))
    assert 0 < meta.info["verdict"]["pictures_decoded"] <= shown.info["verdict"]["pictures_decoded"]
    assert meta.info["signals"]["motion"]["per_frame"][8:11] == ["bitstream", "decoder", "bitstream"]


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg1video"])
def test_a_b_picture_carries_from_the_pictures_around_it(tmp_path: Path, codec: str) -> None:
    """However many references were decoded before its GoP: one frame alone is what it is among all."""
    path = write_video(tmp_path / "b.mpg", codec=codec, frames=30, options={"bf": "2", "g": "12"})
    every = extract(path, frames="all", pixels=None, maps=("innovation", "carried"))
    key = int(np.flatnonzero((every.frame_type == "I") & (every.frame_pts > every.frame_pts[6]))[0])
    behind = [int(frame) for frame in np.flatnonzero(every.frame_type == "B") if frame > key]
    for frame in behind[:4]:
        alone = extract(path, frames=[frame], pixels=None, maps=("innovation", "carried"))
        np.testing.assert_array_equal(alone.energy_carried[0], every.energy_carried[frame])
        assert not np.array_equal(alone.energy_carried[0], every.energy_carried[frame - 1])


def test_rgb_coded_as_h264_has_no_motion_residual(tmp_path: Path) -> None:
    path = write_video(tmp_path / "rgb.mkv", codec="libx264rgb", pix_fmt="rgb24", frames=4)
    with pytest.raises(SourceError, match="no planar Y, Cb, Cr") as caught:
        extract(path, frames="all", residual="motion")
    assert caught.value.code != "usage"


def test_carried_holds_what_innovation_has_forgotten(data: Path) -> None:
    """In a still scene later pictures code nothing; what is on screen is still carried from the first."""
    meta = extract(data / "still_h264.mp4", frames=[0, 30, 49], maps=("innovation", "carried"))
    assert meta.energy_carried is not None
    assert meta.energy_innovation is not None
    first, _, last = meta.density((9, 12), map="carried")
    assert np.corrcoef(first.ravel(), last.ravel())[0, 1] > 0.95
    assert meta.residual_power is not None
    assert meta.residual_power[2].sum() < 0.01 * meta.residual_power[0].sum()


def test_carried_of_an_intra_picture_is_its_innovation(data: Path) -> None:
    meta = extract(data / "event_h264.mp4", frames=[0], maps=("innovation", "carried"))
    assert meta.energy_carried is not None
    assert meta.energy_innovation is not None
    np.testing.assert_allclose(meta.energy_carried, meta.energy_innovation, rtol=1e-4, atol=1e-4)
