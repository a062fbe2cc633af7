"""Frames, density, vectors and plots are turned, mirrored and scaled as FFmpeg displays the pictures."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from numpy.typing import NDArray

import codecmeta
from codecmeta.container import display_matrix
from codecmeta.container.orientation import find_display_matrix
from codecmeta.container.packets import read_packets
from codecmeta.container.video import open_video
from codecmeta.decoding import side_data
from codecmeta.plot import draw_frame, plot_meta
from codecmeta.record.orientation import Orientation
from codecmeta.storage.local_file import LocalFile
from tests.codecmeta.container.mp4_writer import box, rewrite
from tests.codecmeta.entropy.bit_writer import BitWriter
from tests.codecmeta.make_video import decode_all, write_video

WIDTH, HEIGHT = 96, 64
ONE, LAST = 1 << 16, 1 << 30
TURNS = {
    (a, b, c, d): (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, LAST)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if abs(a) == abs(d) and abs(b) == abs(c) and abs(a) + abs(b) == 1
}
MIRROR, QUARTER = TURNS[-1, 0, 0, 1], TURNS[0, 1, -1, 0]


def corner(index: int) -> NDArray[np.uint8]:
    """Grey, with noise that changes in the upper left corner, and a faint pattern below that moves to the right."""
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[:20, :28] = np.random.default_rng(index).integers(0, 256, (20, 28, 1))
    pattern = np.kron(np.random.default_rng(99).integers(70, 130, (4, 12, 1)), np.ones((4, 4, 1), int))
    image[40:56, 16 + 2 * index : 64 + 2 * index] = pattern
    return image


def write_corner(path: Path, *, codec: str = "libx264", frames: int = 10) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.thread_count = 1
        stream.options = {"g": "50", "x264-params": "bframes=0", "x265-params": "log-level=none:bframes=0:pools=1"}
        for index in range(frames):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(corner(index), format="rgb24")))
        output.mux(stream.encode(None))
    return path


def set_matrices(path: Path, *, track: tuple[int, ...] | None = None, movie: tuple[int, ...] | None = None) -> Path:
    """Write the display matrices of an MP4 file."""

    def put(matrix: tuple[int, ...] | None, at: int, payload: bytes) -> bytes:
        return payload if matrix is None else payload[:at] + struct.pack(">9i", *matrix) + payload[at + 36 :]

    changes = {b"tkhd": lambda payload: put(track, 40, payload), b"mvhd": lambda payload: put(movie, 36, payload)}
    path.write_bytes(rewrite(path.read_bytes(), changes))
    return path


def display(image: NDArray[np.uint8], matrix: tuple[int, ...]) -> NDArray[np.uint8]:
    """Move every pixel to where a display matrix takes it (ISO/IEC 14496-12, 6.2.2); the oracle."""
    a, b, _, c, d = (np.sign(value) for value in matrix[:5])
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    across, down = a * x + c * y, b * x + d * y
    across, down = across - across.min(), down - down.min()
    shown = np.zeros((down.max() + 1, across.max() + 1, 3), np.uint8)
    shown[down, across] = image
    return shown


def check(path: Path, matrix: tuple[int, ...]) -> codecmeta.VideoMeta:
    """Check that extracted frames are displayed as the matrix says, which FFmpeg attaches to the first picture."""
    decoded = decode_all(path)
    assert side_data.display_matrix(decoded[0]) == (None if matrix == display_matrix.IDENTITY else matrix)
    meta = codecmeta.extract(path, frames="2,5,8", maps=("innovation",), motion=True)
    orientation = Orientation.from_display_matrix(matrix)
    assert meta.orientation == orientation
    assert meta.frames is not None
    for own, index in zip(meta.frames, (2, 5, 8), strict=True):
        plain = decoded[index].to_ndarray(format="rgb24", interpolation="BICUBIC")
        np.testing.assert_array_equal(own, display(plain, matrix))
    bare = codecmeta.extract(path, frames="2,5,8", maps=("innovation",), pixels=None)
    assert bare.info["stream"] == meta.info["stream"]
    return meta


def noisy_corner(values: NDArray[np.float64]) -> tuple[bool, bool]:
    """Whether the largest mean of the four quarters lies at the bottom, and whether it lies at the right."""
    rows, columns = values.shape[0] // 2, values.shape[1] // 2
    means = [values[y : y + rows, x : x + columns].mean() for y in (0, rows) for x in (0, columns)]
    return bool(np.argmax(means) // 2), bool(np.argmax(means) % 2)


@pytest.mark.parametrize("turn", TURNS)
def test_all_matrices_of_a_track(tmp_path: Path, turn: tuple[int, int, int, int]) -> None:
    """The corner that changes is where the density is, in the frames and in the map, and where vectors begin."""
    path = set_matrices(write_corner(tmp_path / "clip.mp4"), track=TURNS[turn])
    meta = check(path, TURNS[turn])
    assert meta.frames is not None and meta.mv_offset is not None
    change = np.abs(np.diff(meta.frames.astype(np.float64), axis=0)).mean(axis=(0, 3))
    density = meta.density((meta.frames.shape[1] // 8, meta.frames.shape[2] // 8), map="innovation")[1:].mean(axis=0)
    assert noisy_corner(density.astype(np.float64)) == noisy_corner(change)
    assert density.shape == (change.shape[0] // 8, change.shape[1] // 8)
    blocks = change.reshape(density.shape[0], 8, density.shape[1], 8).mean(axis=(1, 3))
    fits = [
        np.corrcoef(blocks.reshape(-1), other.reshape(-1))[0, 1]
        for other in (density, density[::-1], density[:, ::-1], density[::-1, ::-1])
    ]
    assert np.argmax(fits) == 0 and fits[0] > max(fits[1:]) + 0.1
    # the pattern moves along: its vectors point back to where it came from
    a, b, _, _ = turn
    vectors = meta.displayed_vectors(1)
    moving = vectors[np.abs(vectors[:, 4:6]).max(axis=1) >= 1]
    assert len(moving) > 0
    back = np.median(moving[:, 4:6], axis=0)
    assert np.dot(back, (a, b)) < 0
    centre = np.median(moving[:, :2] + moving[:, 2:4] / 2, axis=0)
    place = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    place[40:56, 26:74] = 1
    middle = np.argwhere(display(place, TURNS[turn])[..., 0])[:, ::-1].mean(axis=0)
    assert np.abs(centre - middle).max() < 12


def test_track_and_movie_are_combined(tmp_path: Path) -> None:
    path = set_matrices(write_corner(tmp_path / "clip.mp4"), track=MIRROR, movie=QUARTER)
    mirrored_then_turned = TURNS[0, -1, -1, 0]
    check(path, mirrored_then_turned)
    # the other order would be another orientation
    check(set_matrices(path, track=QUARTER, movie=MIRROR), TURNS[0, 1, 1, 0])
    check(set_matrices(path, track=QUARTER, movie=TURNS[0, -1, 1, 0]), display_matrix.IDENTITY)


@pytest.mark.parametrize("mirrors", [{}, {"hflip": True}, {"vflip": True}])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_projections_of_matroska(tmp_path: Path, degrees: int, mirrors: dict[str, bool]) -> None:
    if not hasattr(VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV writes no display matrices")
    source, path = write_corner(tmp_path / "plain.mp4"), tmp_path / "turned.mkv"
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        copy.set_display_rotation(degrees, **mirrors)
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    matrix = side_data.display_matrix(decode_all(path)[0])
    assert (matrix is None) == (degrees == 0 and not mirrors)
    check(path, matrix or display_matrix.IDENTITY)


def orientation_message(codec: str, *, mirrored: bool, flipped: bool, degrees: int) -> bytes:
    """Write an SEI NAL unit that holds until another one comes."""
    payload = BitWriter().u(0, 1).u(int(mirrored), 1).u(int(flipped), 1).u(degrees * 65536 // 360, 16)
    payload = payload.ue(1).u(0, 1) if codec == "libx264" else payload.u(1, 1)
    bits = payload.bits + "1" * (len(payload.bits) % 8 != 0)
    bits += "0" * (-len(bits) % 8)
    message = int(bits, 2).to_bytes(len(bits) // 8, "big")
    unit = BitWriter().u(47, 8).u(len(message), 8)
    for byte in message:
        unit.u(byte, 8)
    bits = unit.bits + "10000000"
    header = b"\x06" if codec == "libx264" else bytes([39 << 1, 1])
    return header + int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\0\0\0", b"\0\0\3\0")


def insert_unit(source: Path, path: Path, unit: bytes) -> Path:
    """Copy an MP4 file, with a NAL unit before the first picture."""
    with av.open(str(source)) as reader, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(reader.demux(video=0)):
            if packet.size:
                changed = av.Packet(
                    len(unit).to_bytes(4, "big") + unit + bytes(packet) if number == 0 else bytes(packet)
                )
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.is_keyframe, changed.stream = packet.is_keyframe, copy
                output.mux(changed)
    return path


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    ("mirrored", "flipped", "degrees"), [(False, False, 90), (True, False, 0), (True, False, 90), (True, True, 270)]
)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_messages_in_the_stream(
    tmp_path: Path, codec: str, mirrored: bool, flipped: bool, degrees: int, container: str
) -> None:
    source = write_corner(tmp_path / "plain.mp4", codec=codec)
    unit = orientation_message(codec, mirrored=mirrored, flipped=flipped, degrees=degrees)
    path = insert_unit(source, tmp_path / f"turned.{container}", unit)
    matrix = side_data.display_matrix(decode_all(path)[0])
    assert matrix is not None
    check(path, matrix)


def test_a_message_outranks_the_container(tmp_path: Path) -> None:
    source = set_matrices(write_corner(tmp_path / "plain.mp4"), track=MIRROR)
    unit = orientation_message("libx264", mirrored=False, flipped=False, degrees=90)
    path = insert_unit(source, tmp_path / "turned.mp4", unit)
    set_matrices(path, track=MIRROR)
    check(path, TURNS[0, -1, 1, 0])
    silent = orientation_message("libx264", mirrored=False, flipped=False, degrees=0)
    path = set_matrices(insert_unit(source, tmp_path / "silent.mp4", silent), track=MIRROR)
    check(path, MIRROR)


def test_other_angles_and_changes_are_said(tmp_path: Path) -> None:
    path = write_corner(tmp_path / "clip.mp4")
    set_matrices(path, track=(46341, 46341, 0, -46341, 46341, 0, 0, 0, LAST))
    meta = codecmeta.extract(path, frames="0,5", maps=("innovation",))
    assert meta.orientation == Orientation()
    assert "multiple of 90 degrees" in meta.info["extraction"]["warnings"][0]
    # the message of the first picture says one thing, the container another of all that follow
    unit = orientation_message("libx264", mirrored=False, flipped=False, degrees=90)
    turned = set_matrices(insert_unit(path, tmp_path / "turned.mp4", unit), track=MIRROR)
    meta = codecmeta.extract(turned, frames="0,5", maps=("innovation",))
    assert meta.info["extraction"]["warnings"] == [
        "the orientation changes: 1 frames are displayed in the orientation of the first picture"
    ]


def test_hostile_headers_turn_nothing(tmp_path: Path) -> None:
    path = write_corner(tmp_path / "clip.mp4")
    for matrix in ((0,) * 9, (1, 0, 0, 0, 0, 0, 0, 0, 0), (-(2**31),) * 9):
        set_matrices(path, track=matrix)
        meta = codecmeta.extract(path, frames="0", maps=("innovation",))
        assert meta.frames is not None
    path.write_bytes(rewrite(path.read_bytes(), {b"mvhd": lambda payload: payload[:60]}))
    with open_video(path) as video:
        assert len(find_display_matrix(video, read_packets(video))) == 9
    cut = orientation_message("libx264", mirrored=True, flipped=False, degrees=0)[:4]
    path = insert_unit(write_corner(tmp_path / "plain.mp4"), tmp_path / "cut.mp4", cut)
    assert codecmeta.extract(path, frames="0", maps=("innovation",)).orientation == Orientation()


@pytest.mark.parametrize("quarter", [False, True])
@pytest.mark.parametrize(("ratio", "size"), [((2, 1), (192, 64)), ((3, 4), (72, 64)), ((64, 45), (137, 64))])
def test_anamorphic_frames_have_square_pixels(
    tmp_path: Path, ratio: tuple[int, int], size: tuple[int, int], quarter: bool
) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, frames=4, options={"x264-params": f"sar={ratio[0]}/{ratio[1]}"})
    if quarter:
        set_matrices(path, track=QUARTER)
        size = round(HEIGHT * ratio[1] / ratio[0]), WIDTH
    meta = codecmeta.extract(path, frames="all", motion=True)
    assert meta.frames is not None
    assert meta.info["stream"]["sar"] == list(ratio)
    wide, tall = meta.info["stream"]["display_aspect"]
    assert wide / tall == pytest.approx(
        HEIGHT * ratio[1] / (WIDTH * ratio[0]) if quarter else WIDTH * ratio[0] / (HEIGHT * ratio[1])
    )
    assert meta.display_size == size == meta.frames.shape[2:0:-1]
    for own, frame in zip(meta.frames, decode_all(path), strict=True):
        across, down = size[::-1] if quarter else size
        plain = frame.to_ndarray(format="rgb24", width=across, height=down, interpolation="BICUBIC")
        np.testing.assert_array_equal(own, display(plain, QUARTER) if quarter else plain)
    vectors = meta.displayed_vectors(1)
    assert vectors[:, 0].max() < size[0] and vectors[:, 1].max() < size[1]
    # as many columns of patches on wider pixels: the same samples
    box = 0.0, 0.0, size[0] / 2, size[1] / 2
    whole = meta.density((4, 6), map="innovation")
    np.testing.assert_allclose(meta.density((2, 3), box, map="innovation"), whole[:, :2, :3], rtol=1e-5)
    small = codecmeta.extract(path, frames="0", pixels=32)
    assert small.frames is not None and min(small.frames.shape[1:3]) == 32
    assert small.frames.shape[2] / small.frames.shape[1] == pytest.approx(wide / tall, rel=0.03)
    plain_meta = codecmeta.extract(path, frames="0", square_pixels=False)
    assert plain_meta.frames is not None
    assert plain_meta.frames.shape[1:3] == ((WIDTH, HEIGHT) if quarter else (HEIGHT, WIDTH))
    assert plain_meta.info["extraction"]["digest"] != small.info["extraction"]["digest"]


@pytest.mark.parametrize(("wide", "cut"), [(WIDTH, False), (WIDTH - 6, True)])
def test_clean_apertures_are_said(tmp_path: Path, wide: int, cut: bool) -> None:
    aperture = box(b"clap", struct.pack(">4IiIiI", 2 * wide, 2, HEIGHT, 1, 0, 1, 0, 1))

    def add(payload: bytes) -> bytes:
        (length,) = struct.unpack_from(">I", payload, 8)
        return payload[:8] + struct.pack(">I", length + len(aperture)) + payload[12:] + aperture

    path = write_corner(tmp_path / "clip.mp4")
    path.write_bytes(rewrite(path.read_bytes(), {b"stsd": add}))
    meta = codecmeta.extract(path, frames="0", maps=("innovation",))
    assert ("clean aperture" in " ".join(meta.info["extraction"]["warnings"])) == cut
    assert meta.frames is not None and meta.frames.shape[1:3] == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "alpha"),
    [
        ("clip.webm", "libvpx-vp9", "yuva420p", True),
        ("clip.webm", "libvpx-vp9", "yuv420p", False),
        ("clip.mkv", "ffv1", "yuva420p", True),
        ("clip.gif", "gif", "rgb8", False),
    ],
)
def test_alpha_that_is_not_read_is_said(tmp_path: Path, name: str, codec: str, pix_fmt: str, alpha: bool) -> None:
    options = {"auto-alt-ref": "0", "deadline": "realtime"} if codec == "libvpx-vp9" else {}
    path = write_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt, frames=3, options=options)
    meta = codecmeta.extract(path, residual="none", pixels=64)
    assert ("alpha" in " ".join(meta.info["extraction"]["warnings"])) == alpha


def element(identifier: int, payload: bytes) -> bytes:
    """Write an EBML element with a length of eight bytes."""
    name = identifier.to_bytes((identifier.bit_length() + 7) // 8, "big")
    return name + (len(payload) | 1 << 56).to_bytes(8, "big") + payload


def test_pixel_crops_are_found(tmp_path: Path) -> None:
    kinds, pictures = (2, 1, 1), (element(0x54AA, b"\3"), element(0x54AA, b"\0"), element(0x54DD, b"\0\4"))
    entries = [
        element(0xAE, element(0x83, bytes([kind])) + element(0xE0, picture))
        for kind, picture in zip(kinds, pictures, strict=True)
    ]
    segment = element(0xEC, bytes(9)) + element(0x1654AE6B, b"".join(entries))
    content = element(0x1A45DFA3, b"") + element(0x18538067, segment)
    path = tmp_path / "clip.mkv"
    path.write_bytes(content)
    with LocalFile(path) as source:
        found = [display_matrix.read_picture_element(source, number=number) for number in range(3)]
    assert found == [pictures[1], pictures[2], b""]
    assert [display_matrix.is_cut(picture) for picture in found] == [False, True, False]
    for end in range(1, len(content)):
        path.write_bytes(content[:end])
        with LocalFile(path) as source:
            display_matrix.read_picture_element(source, number=0)


def test_plots_of_turned_anamorphic_video(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = write_video(tmp_path / "clip.mp4", frames=4, options={"x264-params": "sar=2/1"})
    meta = codecmeta.extract(set_matrices(path, track=TURNS[0, 1, 1, 0]), frames="all", motion=True)
    plot_meta(meta, tmp_path / "plot.png", map="innovation", count=2)
    figure = matplotlib_figure()
    axes = figure.add_subplot()
    draw_frame(axes, meta, 1, map="innovation")
    assert axes.get_xlim() == (0, meta.display_size[0])
    assert axes.get_ylim() == (meta.display_size[1], 0)
    (arrows,) = [one for one in axes.get_children() if type(one).__name__ == "Quiver"]
    vectors = meta.displayed_vectors(1)
    moving = vectors[np.abs(vectors[:, 4:6]).max(axis=1) >= 1]
    ends = np.column_stack([arrows.X + arrows.U, arrows.Y + arrows.V])
    np.testing.assert_allclose(ends, moving[:, :2] + moving[:, 2:4] / 2, atol=1e-4)


def matplotlib_figure() -> Any:
    from matplotlib.figure import Figure

    return Figure()


def test_samples_of_absurd_shape_are_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=2, options={"x264-params": "sar=40/1"})
    meta = codecmeta.extract(path, frames="0")
    assert meta.frames is not None and meta.frames.shape == (1, 64, 96, 3)
    assert meta.display_size == (96, 64)
    assert "implausible" in " ".join(meta.info["extraction"]["warnings"])
