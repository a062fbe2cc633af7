"""Records of HEVC files: the residual of the packets, whatever they come in."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import SourceError, extract
from codecmeta.hevc import ResidualReader
from tests.codecmeta.h264.streams import extradata
from tests.codecmeta.hevc.streams import CLIPS, shown_packets


@pytest.mark.parametrize(
    "name",
    [
        "main_default.mp4",
        "opengop.mkv",
        "rasl_start.mkv",
        "slices_wpp.ts",
        "syn_main10.ts",
        "syn_mono.mkv",
        "ctu16.hevc",
        "syn_nal_noise.hevc",
        "syn_ps_change.hevc",
    ],
)
def test_every_frame_is_that_of_its_packet(name: str) -> None:
    meta = extract(CLIPS / name, frames="all", maps=("innovation",), pixels=None, qp=True)
    assert meta.info["signals"]["innovation"] == {"source": "bitstream"}
    assert meta.info["verdict"]["pictures_decoded"] == 0
    reader = ResidualReader(extradata(CLIPS / name))
    shown = shown_packets(CLIPS / name)
    assert len(meta.frame_pts) == len(shown)
    assert meta.residual_power is not None and meta.mb_bits is not None and meta.mb_type is not None
    assert meta.qp is not None
    differs = 0
    if name == "syn_ps_change.hevc":
        # later sets replace those that the first pictures need
        reader.observe(shown[0])
    for row, packet in enumerate(shown):
        found = reader.measure(packet, block=4)
        np.testing.assert_array_equal(meta.residual_power[row], found.energy.power)
        np.testing.assert_array_equal(meta.mb_bits[row], found.mb_bits)
        np.testing.assert_array_equal(meta.mb_type[row], found.mb_type)
        np.testing.assert_array_equal(meta.qp[row], found.qp)
        differs += not np.array_equal(meta.residual_power[row], meta.residual_power[0])
    assert differs


def test_pictures_that_lead_an_open_start_are_counted() -> None:
    meta = extract(CLIPS / "rasl_start.mkv", frames="all", maps=("innovation",), pixels=None)
    assert (len(meta.frame_pts), meta.info["verdict"]["leading"]) == (12, 4)
    assert meta.info["verdict"]["packets"] == 16


def write(path: Path, *, options: dict[str, str] | None = None, tag: str | None = None) -> Path:
    """Six pictures of noise from x265."""
    rng = np.random.default_rng(3)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.options = {"x265-params": "log-level=none:bframes=0", **(options or {})}
        if tag:
            stream.codec_tag = tag
        for _ in range(6):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 256, (96, 128, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(picture.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("tag", ["hvc1", "hev1"])
def test_both_kinds_of_sample_entry(tmp_path: Path, tag: str) -> None:
    path = write(tmp_path / "clip.mp4", tag=tag)
    meta = extract(path, frames="all", maps=("innovation",), pixels=None)
    assert len(meta.frame_pts) == 6
    assert meta.energy_innovation is not None and meta.energy_innovation.any()


def refuse_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every picture use a tool that is not supported."""
    from codecmeta.errors import BitstreamError

    def refused(self: ResidualReader, packet: bytes, **options: object) -> None:
        raise BitstreamError("palette mode is not supported", unsupported="palette mode")

    monkeypatch.setattr(ResidualReader, "measure", refused)


def test_a_sound_stream_with_a_refused_tool_has_its_other_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_tool(monkeypatch)
    meta = extract(CLIPS / "main_default.mp4", frames="uniform:3", pixels=64, maps=("innovation",))
    assert meta.energy_innovation is None
    assert meta.frames is not None
    assert meta.info["signals"]["innovation"]["absent"] == "hevc: palette mode is not supported"
    with pytest.raises(SourceError, match="palette mode"):
        extract(CLIPS / "main_default.mp4", frames="uniform:3", residual="bitstream", maps=("innovation",))


def test_a_cut_raw_stream_is_noticed(tmp_path: Path) -> None:
    data = (CLIPS / "ctu16.hevc").read_bytes()
    cut = tmp_path / "cut.hevc"
    # beyond the SEI message that follows the slice
    cut.write_bytes(data[:-80])
    with pytest.raises(SourceError, match="cut short") as caught:
        extract(cut, frames="all", maps=("innovation",), pixels=None)
    assert caught.value.code == "truncated"
