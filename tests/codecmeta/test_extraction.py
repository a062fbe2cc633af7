"""From a file to a record: what is in it, where it came from, and that it is the same every time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import av
import numpy as np
import pytest

import codecmeta
from codecmeta import Limits, SamplingError, SourceError, UsageError, VideoMeta, extract
from codecmeta.h264.reader import ResidualReader
from codecmeta.record import npz
from tests.codecmeta.h264.test_motion_vectors import lay_out
from tests.codecmeta.make_video import decode_all, write_video

CLIPS = ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm", "still_h264.mp4"]
SOURCES = dict(zip(CLIPS, ["bitstream", "bitstream", "motion", "bitstream", "proxy", "bitstream"], strict=True))


def identical(a: VideoMeta, b: VideoMeta) -> bool:
    for name in npz.FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (x is not None and not np.array_equal(x, y)):
            return False
    return bool(a.info == b.info)


@pytest.mark.parametrize("name", CLIPS)
def test_own_clips(data: Path, tmp_path: Path, name: str) -> None:
    expected = json.loads((data / "expected.json").read_text())["clips"][name]
    meta = extract(data / name, frames="uniform:9", motion=True, qp=True)
    stream, signals = meta.info["stream"], meta.info["signals"]
    assert (meta.width, meta.height, stream["codec"]) == (expected["width"], expected["height"], expected["codec"])
    assert meta.info["verdict"]["frames"] == expected["frames"]
    assert meta.info["verdict"]["state"] == "complete"
    assert [gop.packets for gop in meta.gops] == np.diff([*expected["key_frames"], expected["frames"]]).tolist()
    assert signals["innovation"]["source"] == SOURCES[name]
    rows, cols = -(-meta.height // meta.block), -(-meta.width // meta.block)
    assert meta.energy_innovation is not None
    assert meta.energy_innovation.shape == (9, rows, cols)
    has_vectors = expected["codec"] in ("h264", "mpeg4")
    for field, signal in (("energy_carried", "carried"), ("mv", "motion")):
        assert (getattr(meta, field) is not None) == has_vectors
        assert ("absent" in signals[signal]) != has_vectors
    if not has_vectors:
        assert "exports no motion vectors" in signals["motion"]["absent"]
    meta.save(tmp_path / "a.npz")
    assert identical(codecmeta.load(tmp_path / "a.npz"), meta)


def test_all_real_clips_give_a_record(clips: Path, tmp_path: Path) -> None:
    for path in sorted(path for path in clips.rglob("*.*") if path.suffix != ".md"):
        meta = extract(path, frames="uniform:3", pixels=96)
        meta.save(tmp_path / "a.npz")
        assert identical(codecmeta.load(tmp_path / "a.npz"), meta), path.name
        assert meta.frames is not None
        assert min(meta.frames.shape[1:3]) <= 96
        codec = meta.info["stream"]["codec"]
        sources = {"h264": "bitstream", "hevc": "bitstream", "mpeg4": "motion", "mpeg2video": "motion"}
        source = sources.get(codec, "proxy")
        assert meta.info["signals"]["innovation"]["source"] == source, path.name


@pytest.mark.parametrize("name", ["event_h264.mp4", "noise_mpeg4.avi", "pan_hevc.mp4"])
def test_the_same_file_gives_the_same_arrays(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = extract(data / name, frames="uniform:6", motion=True, qp=True)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    for _ in range(2):
        assert identical(first, extract(data / name, frames="uniform:6", motion=True, qp=True))
    assert not identical(first, extract(data / name, frames="uniform:7", motion=True, qp=True))


@pytest.mark.parametrize("name", ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi"])
def test_vectors_and_quantisers_are_the_decoders(data: Path, name: str) -> None:
    """Against one plain serial decoding with both exports on, every frame.

    Those read from the bitstream tell partitions below 8x8 apart, which FFmpeg does not.
    """
    from codecmeta.decoding import side_data

    with av.open(str(data / name)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.options = {"export_side_data": "mvs+venc_params"}
        plain = list(container.decode(stream))
    meta = extract(data / name, frames="all", motion=True, qp=True, pixels=None)
    assert meta.mv is not None
    assert meta.mv_offset is not None
    assert meta.qp is not None
    assert len(plain) == len(meta.frame_pts)
    for index, frame in enumerate(plain):
        vectors = side_data.vectors(frame)
        found = meta.mv[meta.mv_offset[index] : meta.mv_offset[index + 1]]
        plain_vectors = np.zeros((0, 7), np.int16) if vectors is None else vectors
        if meta.info["signals"]["motion"]["source"] == "decoder":
            assert np.array_equal(found, plain_vectors), index
        else:
            covered, own = lay_out(found, meta.width // 4, meta.height // 4)
            for x, y, _w, _h, dx, dy, direction in plain_vectors.tolist():
                at = int(direction > 0), y // 4, x // 4
                assert tuple(own[at]) == (dx, dy), index
                assert covered[at] or (dx, dy) == (0, 0), index
        exported = side_data.quantisers(frame, meta.width, meta.height)
        if exported is not None:
            assert np.array_equal(meta.qp[index], exported), index


def test_pixels_are_the_decoded_frames(data: Path) -> None:
    meta = extract(data / "event_h264.mp4", frames="7,150,299", pixels=120, residual="none")
    plain = decode_all(data / "event_h264.mp4")
    assert meta.frames is not None
    assert meta.frames.shape == (3, 120, 160, 3)
    for row, place in enumerate((7, 150, 299)):
        expected = plain[place].reformat(width=160, height=120, format="rgb24", interpolation="BICUBIC").to_ndarray()
        assert np.array_equal(meta.frames[row], expected)


@pytest.mark.parametrize("name", ["event_h264.mp4", "pan_hevc.mp4"])
def test_innovation_alone_decodes_nothing(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = extract(data / name, pixels=None, maps=("innovation",), qp=True)
    assert meta.info["verdict"]["pictures_decoded"] == 0
    assert meta.energy_carried is None
    assert meta.frames is None
    assert set(meta.frame_type) <= set("IPB")
    with_pixels = extract(data / name, maps=("innovation",), qp=True)
    for array in ("energy_innovation", "residual_power", "residual_mean", "mb_bits", "mb_type", "qp", "frame_type"):
        assert np.array_equal(getattr(meta, array), getattr(with_pixels, array)), array


def test_bits_add_up_to_the_packets(data: Path) -> None:
    """Macroblock bits plus headers are the packet: never more than it, and nearly all of a large one."""
    meta = extract(data / "event_h264.mp4", pixels=None, maps=("innovation",), frames="keyframes")
    assert meta.mb_bits is not None
    bits = meta.mb_bits.astype(np.int64).sum(axis=(1, 2))
    sizes = 8 * meta.packet_size[meta.frame_packet].astype(np.int64)
    assert (bits <= sizes).all()
    assert (bits[1:] > 0.9 * sizes[1:]).all()


def test_block_size_follows_the_picture(data: Path, tmp_path: Path) -> None:
    assert extract(data / "event_h264.mp4", frames="1", residual="none").block == 4
    path = write_video(tmp_path / "large.mp4", width=320, height=288, frames=2)
    assert extract(path, frames="1", residual="none").block == 8


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


def test_options_are_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    with pytest.raises(UsageError, match="auto, bitstream, motion, proxy, none"):
        extract(missing, residual="exact")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="innovation, carried"):
        extract(missing, maps=("texture",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"16\.\.4320"):
        extract(missing, pixels=3)
    with pytest.raises(SamplingError):
        extract(missing, frames="some")
    with pytest.raises(SourceError) as caught:
        extract(missing)
    assert caught.value.code == "not_a_file"


def test_sources_that_a_codec_does_not_have(data: Path) -> None:
    for source in ("bitstream", "motion"):
        with pytest.raises(SourceError, match="auto, proxy, none"):
            extract(data / "objects_vp9.webm", residual=source)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="auto, bitstream, proxy, none"):
        extract(data / "pan_hevc.mp4", residual="motion")
    with pytest.raises(SamplingError, match=r"frames 0\.\.63"):
        extract(data / "pan_hevc.mp4", frames=[64])


def test_a_file_that_changes_while_it_is_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes((data / "still_h264.mp4").read_bytes())
    original = ResidualReader.measure

    def touch(self: ResidualReader, *arguments: object, **named: object) -> object:
        os.utime(path, ns=(1, 1))
        return original(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ResidualReader, "measure", touch)
    with pytest.raises(SourceError) as caught:
        extract(path, pixels=None, maps=("innovation",))
    assert caught.value.code == "changed_while_reading"


@pytest.mark.parametrize("name", ["event_h264.mp4", "cut_h264.mkv"])
def test_proxy_finds_what_moves(data: Path, name: str) -> None:
    """On H.264 clips both can be had: the re-encoded residual points to the same places as the true one."""
    true = extract(data / name, frames="uniform:8", pixels=None, maps=("innovation",))
    proxy = extract(data / name, frames="uniform:8", pixels=None, maps=("innovation",), residual="proxy")
    assert proxy.info["signals"]["innovation"]["source"] == "proxy"
    assert proxy.energy_innovation is not None
    assert true.energy_innovation is not None
    assert proxy.energy_innovation.shape == true.energy_innovation.shape
    expected = json.loads((data / "expected.json").read_text())["clips"][name]
    checked = 0
    for row, place in enumerate(proxy.frame_packet.tolist()):
        for sprite in expected["sprites"]:
            begin, end = sprite["frames"]
            if begin + 1 < place < end and proxy.frame_type[row] != "I":
                left, top, width, height = sprite["boxes"][place - begin]
                block = proxy.block
                inside = np.zeros(proxy.energy_innovation.shape[1:], bool)
                inside[top // block : (top + height) // block + 1, left // block : (left + width) // block + 1] = True
                energy = proxy.energy_innovation[row]
                assert energy[inside].mean() > 2 * energy[~inside].mean()
                checked += 1
    assert checked


def read_all(path: Path, **options: object) -> VideoMeta:
    meta = extract(path, **options)  # type: ignore[arg-type]
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
    signals = extract(path, frames="uniform:4", motion=True).info["signals"]
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
    signal = extract(path, frames="all", maps=("innovation",)).info["signals"]["innovation"]
    assert signal["source"] == "mixed"
    assert any("field prediction" in entry["reason"] for entry in signal["reasons"])


def test_key_pictures_have_a_predecessor_for_the_proxy(tmp_path: Path) -> None:
    """In a still scene the second key picture adds nothing to the picture before it."""
    rng = np.random.default_rng(0)
    still = np.kron(rng.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    path = write_video(tmp_path / "still.webm", codec="libvpx-vp9", frames=24, options={"g": "8"}, image=still)
    meta = extract(path, frames="keyframes", maps=("innovation",))
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


def test_a_record_too_large_is_refused_before_it_is_made(data: Path) -> None:
    with pytest.raises(SourceError, match="choose fewer frames") as caught:
        extract(data / "event_h264.mp4", frames="all", limits=Limits(bytes=1 << 20))
    assert caught.value.code == "limit_exceeded"


def test_vectors_count_towards_the_size_of_a_record(data: Path) -> None:
    """How many there are is seen when they are read."""
    options = {"frames": "all", "residual": "none", "pixels": None}
    size = extract(data / "event_h264.mp4", **options).nbytes
    assert extract(data / "event_h264.mp4", **options, limits=Limits(bytes=size)).nbytes == size
    with pytest.raises(SourceError, match=f"allowed are {size}"):
        extract(data / "event_h264.mp4", **options, motion=True, limits=Limits(bytes=size))


@pytest.mark.parametrize("name", ["pixels", "frames", "bytes"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(UsageError, match=f"limit of {name} is 0"):
        Limits(**{name: 0})
