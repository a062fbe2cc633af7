"""HEVC pictures whose headers say that they are never shown (Rec. ITU-T H.265, 7.4.7.1, pic_output_flag)."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from codecmeta import extract
from codecmeta.decoding.linear_decode import decode_linearly
from codecmeta.entropy.bits import BitReader
from codecmeta.entropy.nal import remove_emulation_prevention, split_units
from codecmeta.entropy.parameter_sets import ParameterSets
from codecmeta.hevc.nal import FIRST_IRAP, LAST_IRAP, PPS, SPS
from codecmeta.hevc.picture_parameters import PictureParameters, picture_number, read_picture_parameters
from codecmeta.hevc.sequence_parameters import SequenceParameters, read_sequence_parameters, sequence_number
from codecmeta.hevc.slice_header import read_slice_header
from codecmeta.record.options import ResidualChoice
from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.make_video import write_video

FRAMES = 24
WITHHELD = frozenset((3, 8, 9, 17))
"""Packets of pictures that are not shown: some that others refer to, and some that none does."""

OPTIONS: dict[str, tuple[ResidualChoice, int | None]] = {
    "pixels": ("none", 32),
    "packets": ("none", None),
    "residual": ("auto", None),
}


def to_bits(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


def write_unit(unit: bytes, bits: str) -> bytes:
    """Return a NAL unit with another RBSP, whose trailing bits are included."""
    writer = BitWriter()
    writer.bits = bits[: bits.rindex("1")]
    return writer.nal(int.from_bytes(unit[:2], "big"), header_bytes=2)


def add_output_flags(packets: list[bytes]) -> list[bytes]:
    """Return a byte stream's packets with output_flag_present_flag and pic_output_flag, 0 for `WITHHELD` packets."""
    sets: ParameterSets[SequenceParameters, PictureParameters] = ParameterSets(
        sequence_number=sequence_number,
        picture_number=picture_number,
        read_sequence=read_sequence_parameters,
        read_picture=read_picture_parameters,
    )
    written = []
    for number, packet in enumerate(packets):
        units = []
        for unit in split_units(packet, 0):
            kind, rbsp = unit[0] >> 1 & 63, remove_emulation_prevention(unit[2:])
            bits = to_bits(rbsp)
            if kind == SPS:
                sets.store_sequence(rbsp)
            elif kind == PPS:
                sets.store_picture(rbsp)
                reader = BitReader(rbsp, "picture parameter set")
                reader.ue()
                reader.ue()
                reader.skip(1)
                assert not reader.flag()
                bits = bits[: reader.position - 1] + "1" + bits[reader.position :]
            elif kind <= LAST_IRAP:
                reader = BitReader(rbsp, "slice header")
                assert reader.flag()
                reader.skip(kind >= FIRST_IRAP)
                reader.ue()
                reader.ue()
                data = 8 * read_slice_header(rbsp, kind, sets.picture, None).data_position
                end = bits.rindex("1", 0, data)
                header = bits[: reader.position] + "10"[number in WITHHELD] + bits[reader.position : end] + "1"
                bits = header + "0" * (-len(header) % 8) + bits[data:]
            units.append(write_unit(unit, bits))
        written.append(b"".join(units))
    return written


def copy(packets: list[av.Packet], payloads: list[bytes], folder: Path, suffix: str) -> Path:
    """Write payloads with the times of packets."""
    raw = folder / "raw.h265"
    raw.write_bytes(b"".join(payloads))
    if suffix == "h265":
        return raw
    path = folder / f"clip.{suffix}"
    with av.open(str(raw)) as reader, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(reader.streams.video[0])
        copies = [packet for packet in reader.demux(video=0) if packet.size]
        for copied, packet in zip(copies, packets, strict=True):
            copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
            copied.is_keyframe, copied.stream = packet.is_keyframe, stream
            output.mux(copied)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h265"])
@pytest.mark.parametrize("flagged", [True, False])
def test_pictures_that_are_never_shown_are_no_frames_and_no_loss(tmp_path: Path, suffix: str, flagged: bool) -> None:
    options = {"x265-params": "log-level=none:pools=none:frame-threads=1:bframes=2:open-gop=0:keyint=12"}
    source = write_video(tmp_path / "source.ts", codec="libx265", frames=FRAMES, options=options)
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    payloads = [bytes(packet) for packet in packets]
    path = copy(packets, add_output_flags(payloads) if flagged else payloads, tmp_path, suffix)
    hidden = sorted(WITHHELD) if flagged else []
    with av.open(str(path)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES - len(hidden)

    shown = [number for number in range(FRAMES) if number not in hidden]
    for name, (residual, pixels) in OPTIONS.items():
        meta = extract(path, frames="all", residual=residual, pixels=pixels)
        verdict = meta.info["verdict"]
        assert sorted(meta.frame_packet.tolist()) == shown, name
        assert verdict["hidden"] == len(hidden)
        assert verdict["missing_frames"] == 0
        assert verdict["state"] == ("unknown" if suffix == "h265" else "complete"), (name, verdict)
        if meta.packet_shown is not None:
            assert np.flatnonzero(~meta.packet_shown).tolist() == hidden
    assert decode_linearly(path).missing == 0
