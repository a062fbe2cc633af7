"""Headers of VP9 packets, against what libav's decoder accepts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import pytest

from codecmeta import extract
from codecmeta.container.packet_form import open_check
from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.make_video import write_video

SPARSE: dict[str, Any] = {"frames": [0], "pixels": None, "maps": ("innovation",)}
SYNC = 0x498342
ZEROS = bytes(96)


def accept(packets: list[bytes]) -> str:
    """Return y or n for each packet in turn."""
    check = open_check("vp9", b"")
    assert check is not None
    return "".join(
        "ny"[check(lambda begin, count, data=data: data[begin : begin + count], len(data), 0)] for data in packets
    )


def decode(packets: list[bytes]) -> tuple[str, int]:
    """Return y or n for each packet that libav's decoder takes, and the pictures that it gives."""
    decoder = av.CodecContext.create("vp9", "r")
    decoder.thread_count = 1
    taken, pictures = "", 0
    for packet in packets:
        try:
            pictures += len(decoder.decode(av.Packet(packet)))
            taken += "y"
        except av.FFmpegError:
            taken += "n"
    return taken, pictures


def split(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def write_frame(
    *,
    profile: int = 0,
    key: bool = False,
    intra: bool = False,
    shown: bool = True,
    resilient: bool = False,
    size: tuple[int, int] | None = None,
    colours: tuple[tuple[int, int], ...] = (),
    references: tuple[int, int, int] = (0, 1, 2),
    refreshed: int = 1,
    sync: int = SYNC,
    segments: bool = False,
    tiles: tuple[int, ...] = (0,),
    header: int | None = None,
    parts: tuple[bytes, ...] = (ZEROS,),
    compressed: bytes = ZEROS,
    reserved: int | None = None,
) -> bytes:
    """Write a frame whose compressed header and tiles are mostly zeros (VP9 bitstream specification, 6.2).

    Args:
        colours: values of color_config and their bits.
        size: of the picture; None takes that of the first reference.
        tiles: the bits of tile_info.
        header: header_size_in_bytes, where it is not that of `compressed`.
        parts: the tiles.
        reserved: the reserved bit of profile 3.
    """
    bits = BitWriter()
    for value, count in ((2, 2), (profile & 1, 1), (profile >> 1, 1)):
        bits.u(value, count)
    if reserved is not None:
        bits.u(reserved, 1)
    for flag in (False, not key, shown, resilient):
        bits.u(int(flag), 1)
    if not key:
        if not shown:
            bits.u(int(intra), 1)
        bits.u(0, 0 if resilient else 2)
    if key or intra:
        bits.u(sync, 24)
        for value, count in colours:
            bits.u(value, count)
    if not key:
        bits.u(refreshed, 8)
    if not key and not intra:
        for reference in references:
            bits.u(reference, 3)
            bits.u(0, 1)
        for flag in (0, 0, 0) if size else (1,):
            bits.u(flag, 1)
    if size:
        for side in size:
            bits.u(side - 1, 16)
    bits.u(1, 1)
    bits.u(0x00070007, 32)
    if not key and not intra:
        # allow_high_precision_mv, is_filter_switchable, raw_interpolation_filter
        bits.u(0b0001, 4)
    bits.u(0, 2 if resilient else 4)
    # level, sharpness, deltas that are all updated; base_q_idx, and one of the three deltas
    bits.u(0, 9)
    bits.u(0b11, 2)
    for _ in range(6):
        bits.u(0b1_000000_0, 8)
    bits.u(60, 8)
    bits.u(0b0_1_0000_0_0, 8)
    bits.u(int(segments), 1)
    if segments:
        bits.u(1, 1)
        for count in (7, 3):
            for _ in range(count):
                bits.u(1, 1)
                bits.u(200, 8)
            if count == 7:
                bits.u(1, 1)
        bits.u(0b10, 2)
        for _ in range(8):
            for count in (9, 7):
                bits.u(1, 1)
                bits.u(0, count)
            bits.u(0b0_0, 2)
    for tile in tiles:
        bits.u(tile, 1)
    bits.u(len(compressed) if header is None else header, 16)
    sized = [len(part).to_bytes(4, "big") + part for part in parts[:-1]]
    bits.align_zero()
    start = int(bits.bits, 2).to_bytes(len(bits.bits) // 8, "big")
    return start + compressed + b"".join(sized) + parts[-1]


KEY = write_frame(key=True, colours=((2, 3), (0, 1)), size=(64, 64))
RGB = ((7, 3), (0, 1))


@pytest.mark.parametrize(
    ("frames", "accepted"),
    [
        ([KEY, write_frame(), write_frame(shown=False), write_frame(resilient=True), b"\x88"], "yyyyy"),
        ([KEY, write_frame(segments=True), write_frame(shown=False, intra=True, size=(96, 32))], "yyy"),
        ([write_frame(profile=1, key=True, colours=(*RGB[:1], (0, 1)), size=(64, 64)), write_frame(profile=1)], "yy"),
        ([write_frame(profile=1, key=True, colours=(*RGB[:1], (1, 1)), size=(64, 64))], "n"),
        ([write_frame(key=True, colours=RGB[:1], size=(64, 64))], "n"),
        ([write_frame(profile=1, key=True, colours=((2, 3), (0, 1), (0, 2), (0, 1)), size=(64, 64))], "y"),
        ([write_frame(profile=1, key=True, colours=((2, 3), (0, 1), (3, 2), (0, 1)), size=(64, 64))], "n"),
        ([write_frame(profile=1, key=True, colours=((2, 3), (0, 1), (0, 2), (1, 1)), size=(64, 64))], "n"),
        ([write_frame(profile=2, key=True, colours=((0, 1), (2, 3), (0, 1)), size=(64, 64))], "y"),
        (
            [
                write_frame(
                    profile=3, reserved=0, key=True, colours=((1, 1), (2, 3), (0, 1), (0, 2), (0, 1)), size=(64, 64)
                ),
                write_frame(profile=3, reserved=0),
                write_frame(profile=3, reserved=1),
            ],
            "yyn",
        ),
        ([write_frame(key=True, colours=((2, 3), (0, 1)), size=(64, 64), sync=SYNC ^ 1)], "n"),
        ([b"\x42" + KEY[1:]], "n"),
        ([KEY, write_frame(header=0)], "yn"),
        ([KEY, write_frame(header=len(ZEROS) * 2)], "yn"),
        ([KEY, write_frame(compressed=b"\x80" + ZEROS)], "yn"),
        ([KEY, write_frame(parts=(b"\x80" + ZEROS,))], "yn"),
        # sizes in proportion to those of the references, down to a half and up to sixteen times
        ([KEY, write_frame(size=(32, 128)), write_frame(size=(128, 32), references=(1, 1, 1))], "yyy"),
        ([KEY, write_frame(size=(31, 64))], "yn"),
        ([KEY, write_frame(size=(64, 1025))], "yn"),
        # 600 pixels are 10 superblocks, at most two columns; a bit more says 1, 2 or 4 rows
        (
            [
                write_frame(key=True, colours=((2, 3), (0, 1)), size=(600, 64), tiles=(1, 0), parts=(ZEROS, ZEROS)),
                write_frame(tiles=(0, 1, 0), parts=(ZEROS, ZEROS)),
                write_frame(tiles=(1, 1, 1), parts=(ZEROS,) * 8),
                write_frame(tiles=(1, 1, 1), parts=(*(ZEROS,) * 6, b"\x80" + ZEROS, ZEROS)),
                write_frame(tiles=(1, 0), parts=(ZEROS,)),
            ],
            "yyynn",
        ),
        # other samples than those of the references
        (
            [
                write_frame(profile=1, key=True, colours=((2, 3), (0, 1), (0, 2), (0, 1)), size=(64, 64)),
                write_frame(
                    profile=1,
                    shown=False,
                    intra=True,
                    colours=((2, 3), (0, 1), (2, 2), (0, 1)),
                    size=(64, 64),
                    refreshed=2,
                ),
                write_frame(profile=1, references=(0, 2, 3)),
                write_frame(profile=1, references=(1, 0, 0)),
                write_frame(profile=1, references=(1, 1, 1)),
            ],
            "yynny",
        ),
    ],
)
def test_headers_that_a_decoder_accepts(frames: list[bytes], accepted: str) -> None:
    assert accept(frames) == accepted
    assert decode(frames)[0] == accepted


def test_frames_before_the_first_key_frame_and_other_profiles() -> None:
    """What is not there is no damage of the packets that refer to it; a profile changes at key frames only."""
    other = write_frame(profile=2, key=True, colours=((0, 1), (2, 3), (0, 1)), size=(64, 64))
    assert accept([write_frame(), b"\x88", KEY, write_frame()]) == "yyyy"
    assert accept([KEY, other, write_frame(profile=2), write_frame()]) == "yyyn"


@pytest.mark.parametrize(
    ("sizes", "accepted"), [((0, 0), "y"), ((0, 1), "n"), ((1, 0), "n"), ((-1000, -1000), "n")], ids=str
)
def test_superframes(sizes: tuple[int, int], accepted: str) -> None:
    """Two frames, whose sizes in the index are too large by so much, -1000 for none."""
    frames = [write_frame(shown=False), write_frame()]
    index = b"".join(max(len(frame) + more, 0).to_bytes(2, "little") for frame, more in zip(frames, sizes, strict=True))
    packets = [KEY, b"".join(frames) + b"\xc9" + index + b"\xc9"]
    assert accept(packets) == "y" + accepted
    assert decode(packets)[0] == "y" + accepted


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames for reference only, in superframes, and segments."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "12", "g": "24", "aq-mode": "1"}
    return write_video(
        tmp_path_factory.mktemp("vp9") / "clip.webm", codec="libvpx-vp9", frames=40, width=160, options=options
    )


def test_flipped_bits_that_take_pictures_are_mostly_found(clip: Path) -> None:
    """A flip that only the arithmetic decoder meets stays unnoticed, such as a length that leaves the markers right."""
    packets = split(clip)
    assert accept(packets) == "y" * len(packets)
    whole = decode(packets)[1]
    random_ = random.Random(7)
    lost = found = 0
    for _ in range(250):
        number, bit = random_.randrange(1, len(packets)), random_.randrange(80)
        data = bytearray(packets[number])
        data[bit // 8] ^= 0x80 >> bit % 8
        flipped = [*packets[:number], bytes(data), *packets[number + 1 :]]
        taken, pictures = decode(flipped)
        # a frame that is not shown any more is noticed by its time
        if pictures < whole and "n" in taken:
            lost += 1
            found += "n" in accept(flipped)
    assert lost > 50
    assert found > 0.8 * lost


VARIANTS: dict[str, tuple[int, str, dict[str, str]]] = {
    "444": (96, "yuv444p", {"profile": "1"}),
    "440": (96, "yuv440p", {"profile": "1"}),
    "rgb": (96, "gbrp", {"profile": "1"}),
    "lossless": (96, "yuv420p", {"lossless": "1"}),
    "tiles": (1100, "yuv420p", {"tile-columns": "2", "tile-rows": "1"}),
    "resilient": (96, "yuv420p", {"error-resilient": "default", "frame-parallel": "1"}),
    "segments": (96, "yuv420p", {"aq-mode": "3", "b": "60k", "lag-in-frames": "0"}),
    "small": (2, "yuv420p", {}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_whole_clips_are_accepted(tmp_path: Path, name: str) -> None:
    width, pix_fmt, options = VARIANTS[name]
    options = {"deadline": "realtime", "cpu-used": "8"} | options
    path = tmp_path / "clip.webm"
    write_video(path, codec="libvpx-vp9", frames=16, width=max(width, 32), pix_fmt=pix_fmt, options=options)
    packets = split(path)
    assert accept(packets) == "y" * len(packets)
    assert accept([packets[0], packets[1][:2] + b"\xff" + packets[1][3:12]])[1] == "n"


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_flipped_length_is_damage_where_no_picture_is_read(tmp_path: Path, suffix: str) -> None:
    """The compressed header of a frame becomes longer than it is, and the tile begins in the midst of another."""
    source = write_video(tmp_path / f"clip.{suffix}", codec="libvpx-vp9", options={"g": "30"})
    assert extract(source, **SPARSE).info["verdict"]["state"] == "complete"
    packets, content = split(source), source.read_bytes()
    states = []
    for number, bit in ((number, bit) for number in (2, 5) for bit in range(64, 80)):
        data = bytearray(packets[number])
        data[bit // 8] ^= 0x80 >> bit % 8
        if decode([*packets[:number], bytes(data), *packets[number + 1 :]])[1] < len(packets):
            damaged = tmp_path / f"damaged.{suffix}"
            damaged.write_bytes(content.replace(packets[number], bytes(data)))
            states.append(extract(damaged, **SPARSE).info["verdict"]["state"])
    assert len(states) > 8
    assert states.count("damaged") > 0.8 * len(states)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_frame_that_should_be_shown_is_damage_where_no_picture_is_read(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / f"clip.{suffix}", codec="libvpx-vp9", options={"g": "30"})
    packet, content = split(source)[5], source.read_bytes()
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(content.replace(packet, bytes([packet[0] ^ 2]) + packet[1:]))
    verdict = extract(damaged, **SPARSE).info["verdict"]
    assert verdict["state"] == "damaged"
    assert "1 packets show no picture" in verdict["evidence"]
