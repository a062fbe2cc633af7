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
from codecmeta.record.fields import FIELDS
from codecmeta.record.options import MAPS
from tests.codecmeta.h264.test_motion_vectors import lay_out
from tests.codecmeta.make_video import decode_all, write_video

CLIPS = ["event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4", "objects_vp9.webm", "still_h264.mp4"]
SOURCES = dict(zip(CLIPS, ["bitstream", "bitstream", "motion", "bitstream", None, "bitstream"], strict=True))


def identical(a: VideoMeta, b: VideoMeta) -> bool:
    for name in FIELDS:
        x, y = getattr(a, name), getattr(b, name)
        if (x is None) != (y is None) or (x is not None and not np.array_equal(x, y)):
            return False
    return bool(a.info == b.info)


@pytest.mark.parametrize("name", CLIPS)
def test_own_clips(data: Path, tmp_path: Path, name: str) -> None:
    expected = json.loads((data / "expected.json").read_text())["clips"][name]
    meta = extract(data / name, frames="uniform:9", motion=True, qp=True, maps=MAPS)
    stream, signals = meta.info["stream"], meta.info["signals"]
    assert (meta.width, meta.height, stream["codec"]) == (expected["width"], expected["height"], expected["codec"])
    assert meta.info["verdict"]["frames"] == expected["frames"]
    assert meta.info["verdict"]["state"] == "complete"
    assert [gop.packets for gop in meta.gops] == np.diff([*expected["key_frames"], expected["frames"]]).tolist()
    assert signals["innovation"].get("source") == SOURCES[name]
    rows, cols = -(-meta.height // meta.block), -(-meta.width // meta.block)
    energy = meta.energy_innovation
    assert (None if energy is None else energy.shape) == ((9, rows, cols) if SOURCES[name] else None)
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
        assert meta.info["signals"]["innovation"].get("source") == sources.get(codec), path.name


@pytest.mark.parametrize("name", ["event_h264.mp4", "noise_mpeg4.avi", "pan_hevc.mp4"])
def test_the_same_file_gives_the_same_arrays(data: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = extract(data / name, frames="uniform:6", motion=True, qp=True, maps=MAPS)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    for _ in range(2):
        assert identical(first, extract(data / name, frames="uniform:6", motion=True, qp=True, maps=MAPS))
    assert not identical(first, extract(data / name, frames="uniform:7", motion=True, qp=True, maps=MAPS))


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


def test_options_are_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    with pytest.raises(UsageError, match="auto, bitstream, motion, proxy, none"):
        extract(missing, residual="exact")
    with pytest.raises(UsageError, match="innovation, carried"):
        extract(missing, maps=("texture",))
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
            extract(data / "objects_vp9.webm", residual=source)
    with pytest.raises(SourceError, match="auto, bitstream, proxy, none"):
        extract(data / "pan_hevc.mp4", residual="motion")
    with pytest.raises(SamplingError, match=r"frames 0\.\.63"):
        extract(data / "pan_hevc.mp4", frames=[64])


@pytest.mark.parametrize("change", ["time", "content, time restored", "replaced by a copy"])
def test_a_file_that_changes_while_it_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    path, copy = tmp_path / "clip.mp4", tmp_path / "copy.mp4"
    content = (data / "still_h264.mp4").read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    original = ResidualReader.measure

    def touch(self: ResidualReader, *arguments: object, **named: object) -> object:
        if change == "time":
            os.utime(path, ns=(2, 2))
        elif change == "replaced by a copy":
            copy.write_bytes(content[:-1] + b"x")
            os.utime(copy, ns=(1, 1))
            copy.replace(path)
        else:
            with path.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"x")
            os.utime(path, ns=(1, 1))
        return original(self, *arguments, **named)

    extract(path, pixels=None, maps=("innovation",))
    monkeypatch.setattr(ResidualReader, "measure", touch)
    with pytest.raises(SourceError) as caught:
        extract(path, pixels=None, maps=("innovation",))
    assert caught.value.code == "changed_while_reading"


@pytest.mark.parametrize("name", ["event_h264.mp4", "cut_h264.mkv"])
def test_proxy_finds_what_moves(data: Path, name: str) -> None:
    """On H.264 clips both are available: the re-encoded residual points to the same places as the true one."""
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


def test_by_default_nothing_is_encoded_or_carried(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("proxy.ProxySource", "h264_source.carry", "carried.carry"):
        monkeypatch.setattr(f"codecmeta.residual.{place}", None)
    for name in CLIPS:
        meta = extract(data / name, frames="uniform:3")
        read = SOURCES[name] == "bitstream"
        assert (meta.mb_bits is not None, meta.mb_type is not None) == (read, read)
        assert meta.frames is not None and meta.energy_carried is None
        assert meta.info["signals"]["carried"]["absent"].startswith("not asked for")
    vp9 = extract(data / "objects_vp9.webm", frames="uniform:3")
    assert vp9.info["signals"]["innovation"]["absent"] == (
        "not asked for (vp9: a proxy is made on request only, by residual proxy)"
    )
    assert vp9.residual_power is None and not vp9.info["extraction"]["warnings"]


def test_on_request_there_is_a_proxy_or_what_is_carried(data: Path) -> None:
    vp9 = extract(data / "objects_vp9.webm", frames="uniform:3", residual="proxy")
    assert vp9.info["signals"]["innovation"] == {"source": "proxy"}
    avc = extract(data / "still_h264.mp4", frames="uniform:3", maps=MAPS)
    assert avc.energy_carried is not None and avc.energy_innovation is not None
    # no other name asks for a proxy
    named = extract(data / "objects_vp9.webm", frames="uniform:3", maps=MAPS)
    assert named.energy_innovation is None and named.energy_carried is None


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
