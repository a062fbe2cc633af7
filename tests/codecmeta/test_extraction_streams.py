"""Records of streams out of the ordinary: raw, cut, joined, without key pictures, with fields, cropped."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import SourceError, VideoMeta, extract
from tests.codecmeta.make_video import decode_all, write_video


def test_raw_stream_is_in_decoder_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.h264", frames=20, options={"bf": "3", "g": "8"})
    meta = extract(path, frames="all")
    assert meta.info["verdict"]["frames"] == 20
    assert "no usable time stamps" in meta.info["extraction"]["warnings"][0]
    assert (np.diff(meta.frame_pts) > 0).all()
    assert meta.frames is not None
    plain = decode_all(path)
    for place in (0, 5, 19):
        assert np.array_equal(meta.frames[place], plain[place].to_ndarray(format="rgb24", interpolation="BICUBIC"))


@pytest.mark.parametrize("ending", ["h264", "ts"])
def test_a_stream_cut_inside_its_last_picture(tmp_path: Path, ending: str) -> None:
    path = write_video(tmp_path / f"clip.{ending}", frames=20, width=320, height=240, options={"crf": "1"})
    with av.open(str(path)) as source:
        last = [packet for packet in source.demux(video=0) if packet.size][-1]
    size = path.stat().st_size
    part = tmp_path / f"part.{ending}"
    cut = size - last.size // 2
    part.write_bytes(path.read_bytes()[: cut // 188 * 188 if ending == "ts" else cut])
    with pytest.raises(SourceError) as caught:
        extract(part)
    assert caught.value.code == "truncated"
    assert extract(path).info["verdict"]["state"] == ("complete" if ending == "ts" else "unknown")


def test_real_raw_stream_halved(clips: Path, tmp_path: Path) -> None:
    content = (clips / "edge" / "bbb_raw_annexb_nopts.264").read_bytes()
    part = tmp_path / "half.264"
    part.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match="last picture is cut short"):
        extract(part)


def test_one_repeated_time_stamp_costs_itself_only(tmp_path: Path) -> None:
    """A varying frame rate: all other frames stay at their time, and are sampled by it."""
    source = write_video(tmp_path / "source.mp4", frames=40, options={"bf": "0"})
    times = np.cumsum([0, *(5 if 10 <= index < 20 else 1 for index in range(39))])
    metas = []
    for name, repeated in (("good.mkv", None), ("repeated.mkv", 30)):
        with av.open(str(source)) as reader, av.open(str(tmp_path / name), "w") as output:
            copy = output.add_stream_from_template(reader.streams.video[0])
            base = reader.streams.video[0].time_base
            assert base is not None
            for number, packet in enumerate(packet for packet in reader.demux(video=0) if packet.size):
                packet.pts = int(times[number - (number == repeated)] / (25 * base))
                packet.dts = int(times[number - 1] / (25 * base)) if number else -1
                packet.stream = copy
                output.mux(packet)
        metas.append(extract(tmp_path / name, frames="all", residual="none", pixels=None))
    good, repeated_one = metas
    assert good.info["extraction"]["warnings"] == []
    assert "1 of the time stamps" in repeated_one.info["extraction"]["warnings"][0]
    assert np.flatnonzero(good.packet_pts != repeated_one.packet_pts).tolist() == [30]
    assert np.array_equal(good.frame_seconds, repeated_one.frame_seconds)
    sampled = [
        extract(tmp_path / name, frames="fps:2", residual="none", pixels=None) for name in ("good.mkv", "repeated.mkv")
    ]
    assert np.array_equal(sampled[0].frame_packet, sampled[1].frame_packet)


def test_concatenated_transport_streams(tmp_path: Path) -> None:
    """Twelve pictures twice with the same time stamps: every one is a frame, and time stamps are made up."""
    one = write_video(tmp_path / "one.ts", frames=12)
    both = tmp_path / "both.ts"
    both.write_bytes(2 * one.read_bytes())
    meta = extract(both, frames="all", residual="none")
    assert meta.info["verdict"]["frames"] == 24
    assert (np.diff(meta.frame_pts) > 0).all()


def read_all(path: Path, **options: object) -> VideoMeta:
    meta = extract(path, **options)
    assert meta.info["verdict"]["missing_frames"] == 0
    return meta


@pytest.mark.parametrize("ending", ["mp4", "ts"])
def test_intra_refresh(tmp_path: Path, ending: str) -> None:
    """Key packets are recovery points: pictures after them are shown only from an earlier start."""
    options = {"g": "20", "x264-params": "intra-refresh=1:keyint=20"}
    path = write_video(tmp_path / f"refresh.{ending}", frames=80, options=options)
    meta = read_all(path, frames="uniform:8", pixels=64)
    assert len(meta.frame_pts) == 8
    plain = decode_all(path)
    assert meta.frames is not None
    step = len(plain) // 8
    last = plain[7 * step + step // 2]
    assert np.array_equal(meta.frames[7], last.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray())


def test_av1(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", codec="libsvtav1", frames=60, options={"preset": "10", "g": "30"})
    for frames in ("uniform:8", "uniform:32", "keyframes"):
        read_all(path, frames=frames)


def test_reordered_pictures_in_avi_come_in_decoder_order(tmp_path: Path) -> None:
    """AVI has one stamp per packet: libav's pts are decode times, and no order of display."""
    path = write_video(tmp_path / "b.avi", frames=24, options={"bf": "2"})
    meta = read_all(path, frames="all")
    assert meta.frames is not None
    plain = decode_all(path)
    assert len(meta.frames) == len(plain)
    for row, frame in enumerate(plain):
        rgb = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
        assert np.array_equal(meta.frames[row], rgb), row
    assert meta.info["extraction"]["warnings"]


def test_vectors_that_are_not_followed_are_not_denied(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.wmv", codec="wmv2", frames=12)
    signals = extract(path, frames="uniform:4", motion=True, maps=("innovation", "carried")).info["signals"]
    assert signals["motion"] == {"source": "decoder"}
    assert signals["carried"] == {"absent": "wmv2: there are no motion vectors that can be followed"}


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4"])
def test_field_prediction_is_not_passed_off_as_motion(tmp_path: Path, codec: str) -> None:
    options = {"flags": "+ilme+ildct", "g": "12", "b": "4M"}
    path = tmp_path / "fields.mkv"
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (50, 100, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = options
        for index in range(12):
            image = np.empty((96, 160, 3), np.uint8)
            image[0::2] = texture[0:96:2, 8 * index : 8 * index + 160]
            image[1::2] = texture[1:96:2, 8 * index + 4 : 8 * index + 164]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    meta = extract(path, frames="all")
    signal = meta.info["signals"]["innovation"]
    assert signal["source"] == "motion"
    unknown = np.array(signal["unknown_frames"])
    assert {row for entry in signal["reasons"] for row in entry["frames"]} == set(unknown)
    assert all("field prediction" in entry["reason"] for entry in signal["reasons"])
    assert set(meta.frame_type[unknown]) == {"P"}
    # a frame of which nothing is known merges nothing
    assert (meta.density((3, 5), map="innovation")[unknown] == 1).all()
    assert meta.residual_power is not None and not meta.residual_power[unknown].any()
    known = np.delete(meta.residual_power, unknown, axis=0)
    assert known[:, 0].any(axis=(1, 2)).all()


def test_key_pictures_have_a_predecessor_for_the_proxy(tmp_path: Path) -> None:
    """In a still scene the second key picture adds nothing to the picture before it."""
    rng = np.random.default_rng(0)
    still = np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = write_video(tmp_path / "still.webm", codec="libvpx-vp9", frames=24, options={"g": "8"}, image=still)
    meta = extract(path, frames="keyframes", residual="proxy")
    assert meta.residual_power is not None
    power = meta.residual_power[:, 0].mean(axis=(1, 2))
    assert len(power) == 3
    assert (power[1:] < 0.2 * power[0]).all()


def test_a_picture_cut_at_the_left(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "cut.mp4", width=160, height=96, frames=8, options={"x264-params": "crop-rect=16,8,0,0"}
    )
    plain = decode_all(path)
    for residual in ("bitstream", "motion"):
        meta = read_all(path, frames="3", residual=residual)
        assert (meta.width, meta.height) == (144, 88)
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.options = {"flags": "+unaligned"}
        plain = list(container.decode(video=0))
    assert meta.frames is not None
    assert np.array_equal(meta.frames[0], plain[3].reformat(format="rgb24", interpolation="BICUBIC").to_ndarray())
