from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codecmeta.container.mpeg4_headers import video_object_layer
from codecmeta.decoding import side_data
from codecmeta.decoding.side_data import Planes
from codecmeta.errors import UsageError
from codecmeta.prediction.compensation import MotionResidual, Reference, implicit_weight, motion_residual
from codecmeta.prediction.dead_zone import chroma_quantiser, dead_zones, quantiser_step
from codecmeta.prediction.padded_reference import ReferenceSamples
from codecmeta.prediction.rounding_control import h263_rounding_type, rounding_type
from codecmeta.prediction.standards import Standard
from codecmeta.record.texture import texture_planes
from tests.oracle import interpolation as oracle
from tests.oracle.streams import Stream, decode, encode, prediction_of

SIDE_DATA = "mvs+venc_params"


def picture(seed: int, shape: tuple[int, int] = (48, 64), top: int = 255) -> Planes:
    rng = np.random.default_rng(seed)
    dtype = np.uint8 if top == 255 else np.uint16
    chroma = (-(-shape[0] // 2), -(-shape[1] // 2))
    y, cb, cr = (rng.integers(0, top + 1, s).astype(dtype) for s in (shape, chroma, chroma))
    return y, cb, cr


def reference(seed: int, distance: int = 1) -> Reference:
    return Reference(samples=ReferenceSamples(picture(seed)), distance=distance)


def covered(residual: MotionResidual, channel: int) -> Any:
    """Return which samples of a plane have an inter prediction."""
    shape = residual.planes[channel].shape
    luma = np.repeat(np.repeat(residual.field.inter, 4, 0), 4, 1)
    step_y = round(residual.planes[0].shape[0] / shape[0])
    step_x = round(residual.planes[0].shape[1] / shape[1])
    return luma[::step_y, ::step_x][: shape[0], : shape[1]]


# --- streams: the residual left out by the decoder itself is the oracle ----------------------------------

STREAMS: dict[str, tuple[Standard, dict[str, Any]]] = {
    "mpeg1video": ("mpeg1", {}),
    "mpeg2video": ("mpeg2", {}),
    "mpeg2video 4:2:2": ("mpeg2", {"pixel_format": "yuv422p"}),
    "mpeg4": ("mpeg4", {}),
    "mpeg4 four vectors": ("mpeg4", {"options": {"flags": "+mv4"}}),
    "mpeg4 quarter sample": ("mpeg4_qpel", {"options": {"flags": "+qpel+mv4"}}),
    "h263": ("h263", {}),
    "h263p": ("h263", {"options": {"flags": "+aic"}}),
    "flv": ("h263", {"container": "flv"}),
}


def rounding_of(stream: Stream, standard: str, payload: bytes) -> int:
    if standard.startswith("mpeg4"):
        value = rounding_type(payload, video_object_layer(stream.extradata or b""))
        assert value is not None
        return value
    return (h263_rounding_type(payload) or 0) if standard == "h263" else 0


@pytest.mark.parametrize("name", STREAMS)
def test_p_pictures_of_mpeg_and_h263_are_predicted_exactly(name: str) -> None:
    """Each P picture right after the I picture, where the decoder's picture without residual is the prediction."""
    standard, options = STREAMS[name]
    stream = encode(name.split()[0], **options)
    wrong_rounding_differs = False
    for index in range(1, 7):
        # repeated, because the MPEG-1/2 decoders attach no vectors to the last picture
        packets = [stream.packets[i] for i in (0, index, index)]
        first, decoded = decode(stream, packets, export_side_data=SIDE_DATA)[:2]
        expected = prediction_of(stream, packets, "nokey")[1]
        rounding = rounding_of(stream, standard, bytes(packets[1]))
        past = [Reference(samples=ReferenceSamples(side_data.planes(first)))]
        table = side_data.vectors(decoded)
        current = side_data.planes(decoded)
        residual = motion_residual(current, table, past, standard=standard, rounding=rounding)
        assert residual.field.inter.mean() > 0.3
        for channel in range(3):
            inter = covered(residual, channel)
            prediction = current[channel].astype(int) - residual.planes[channel]
            np.testing.assert_array_equal(prediction[inter], expected[channel][inter], err_msg=f"{index} {channel}")
        if standard in ("mpeg4", "mpeg4_qpel", "h263"):
            other = motion_residual(current, table, past, standard=standard, rounding=1 - rounding)
            wrong_rounding_differs |= any(
                not np.array_equal(a, b) for a, b in zip(other.planes, residual.planes, strict=True)
            )
    assert wrong_rounding_differs == (standard in ("mpeg4", "mpeg4_qpel", "h263"))


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
def test_b_pictures_of_mpeg_1_and_2_are_predicted_exactly(codec: str) -> None:
    stream = encode(codec, b_frames=2, count=10)
    frames = decode(stream, stream.packets, export_side_data=SIDE_DATA)
    without = prediction_of(stream, stream.packets, "noref")
    kinds = [int(frame.pict_type) for frame in frames]
    pictures = [side_data.planes(frame) for frame in frames]
    checked = 0
    for index, kind in enumerate(kinds):
        if kind != 3:
            continue
        before = max(i for i in range(index) if kinds[i] != 3)
        after = min(i for i in range(index, len(kinds)) if kinds[i] != 3)
        residual = motion_residual(
            pictures[index],
            side_data.vectors(frames[index]),
            [Reference(samples=ReferenceSamples(pictures[before]), distance=index - before)],
            [Reference(samples=ReferenceSamples(pictures[after]), distance=after - index)],
            standard="mpeg2",
        )
        for channel in range(3):
            inter = covered(residual, channel)
            prediction = pictures[index][channel].astype(int) - residual.planes[channel]
            np.testing.assert_array_equal(prediction[inter], without[index][channel][inter])
            checked += int(inter.sum())
        # both lists swapped is not the same
        swapped = motion_residual(
            pictures[index],
            side_data.vectors(frames[index]),
            [Reference(samples=ReferenceSamples(pictures[after]))],
            [Reference(samples=ReferenceSamples(pictures[before]))],
            standard="mpeg2",
        )
        assert not np.array_equal(swapped.planes[0], residual.planes[0])
    assert checked > 50_000


def test_mpeg4_b_pictures_come_without_vectors() -> None:
    """FFmpeg exports blocks and lists of MPEG-4 B pictures, but every vector as zero: known, not exact."""
    stream = encode("mpeg4", b_frames=2, count=8)
    frames = decode(stream, stream.packets, export_side_data=SIDE_DATA)
    tables = [side_data.vectors(frame) for frame in frames if int(frame.pict_type) == 3]
    moved = [side_data.vectors(frame) for frame in frames if int(frame.pict_type) == 2]
    assert tables
    assert all(table is not None and not table[:, 4:6].any() for table in tables)
    assert any(table is not None and table[:, 4:6].any() for table in moved)


# --- real clips with expected residuals -------------------------------------------------------------------


def test_h264_clip_with_one_reference_and_no_deblocking_is_exact(shared: Path) -> None:
    name = "bedroom_h264_nodeblock_ref1.mp4"
    with np.load(shared / "h264" / "real" / f"{name}.residual.npz") as expected:
        stored = {key: expected[key] for key in expected.files}
    import av

    with av.open(str(shared / "clips" / "derived" / name)) as container:
        context = container.streams.video[0].codec_context
        context.options = {"export_side_data": SIDE_DATA, "apply_cropping": "0"}
        context.thread_type = "NONE"
        pictures: list[tuple[Planes, Any]] = []
        for position, frame in enumerate(container.decode(video=0)):
            pictures = [*pictures[-1:], (side_data.planes(frame), side_data.vectors(frame))]
            entries = np.flatnonzero(stored["frame_index"] == position)
            if position > 60:
                break
            if len(entries) == 0 or len(pictures) < 2:
                continue
            (before, _), (current, table) = pictures
            assert current[0].shape == (368, 640)
            residual = motion_residual(current, table, [Reference(samples=ReferenceSamples(before))], standard="h264")
            inter = residual.field.inter[::2, ::2]
            assert inter.mean() > 0.8
            for channel, key, block in ((0, "y", 8), (1, "cb", 4), (2, "cr", 4)):
                sums, squares = block_sums(residual.planes[channel], block)
                rows, cols = stored[f"{key}_sum"].shape[1:]
                known = stored[f"{key}_sqsum"][entries[0]] >= 0
                inside = inter[:rows, :cols] & known
                for got, want in ((sums, f"{key}_sum"), (squares, f"{key}_sqsum")):
                    np.testing.assert_array_equal(got[:rows, :cols][inside], stored[want][entries[0]][inside])
                assert not np.array_equal(squares[:rows, :cols][inside], stored[f"{key}_sqsum"][0][inside])


def block_sums(plane: Any, block: int) -> tuple[Any, Any]:
    clipped = np.clip(plane.astype(np.int64), -128, 127)
    tiles = clipped.reshape(clipped.shape[0] // block, block, -1, block)
    return tiles.sum(axis=(1, 3)), (tiles**2).sum(axis=(1, 3))


# --- brute force on small pictures ------------------------------------------------------------------------


def test_ten_bit_and_full_chroma() -> None:
    rng = np.random.default_rng(1)
    y, cb, cr, *others = (rng.integers(0, 1024, (32, 32)).astype(np.uint16) for _ in range(6))
    current, before = (y, cb, cr), (others[0], others[1], others[2])
    rows = np.array([[8, 8, 16, 16, 3, 2, -1]], np.int16)
    past = [Reference(samples=ReferenceSamples(before))]
    residual = motion_residual(current, rows, past, standard="h264", bit_depth=10)
    for channel in range(3):
        expected = oracle.h264_luma(before[channel].astype(np.int64), 8, 8, 16, 16, 2, 3, 1023)
        np.testing.assert_array_equal(
            residual.planes[channel][8:24, 8:24], current[channel][8:24, 8:24].astype(int) - expected
        )


def test_blocks_without_vector_get_the_texture() -> None:
    current = picture(0, (50, 70))
    rows = np.array([[16, 16, 16, 16, 0, 0, -1]], np.int16)
    residual = motion_residual(
        current, rows, [Reference(samples=ReferenceSamples(picture(1, (50, 70))))], standard="h264"
    )
    expected = texture_planes(current)
    for plane, samples in zip(expected, current, strict=True):
        plane[:4, :4] = samples[:4, :4].astype(int) - 128  # nothing to predict from: mid-grey
    for channel in range(3):
        inter = covered(residual, channel)
        np.testing.assert_array_equal(residual.planes[channel][~inter], expected[channel][~inter])
        assert not np.array_equal(residual.planes[channel][inter], expected[channel][inter])
    intra = motion_residual(current, None, [], standard="h264")
    np.testing.assert_array_equal(intra.planes[0], expected[0])
    assert not intra.field.inter.any()


def test_dead_zone_zeroes_small_blocks_only() -> None:
    current = tuple(np.full(shape, 100, np.uint8) for shape in ((16, 16), (8, 8), (8, 8)))
    before = tuple(plane.copy() for plane in current)
    qp = np.full((1, 1), 32, np.int8)  # Qstep 26: blocks below a mean square of (26 / 8)² = 10.5625
    before[0][0:4, 0:4] += 3  # mean square 9
    before[0][4:8, 4:8] += 4  # 16
    before[1][0:4, 0:4] += 2  # chroma QP 31, Qstep 22: below 7.5625
    before[1][4:8, 4:8] += 3
    rows = np.array([[0, 0, 16, 16, 0, 0, -1]], np.int16)
    past = [Reference(samples=ReferenceSamples(before))]
    residual = motion_residual(current, rows, past, standard="h264", qp=qp)
    assert not residual.planes[0][:4, :4].any()
    assert (residual.planes[0][4:8, 4:8] == -4).all()
    assert not residual.planes[1][:4, :4].any()
    assert (residual.planes[1][4:8, 4:8] == -3).all()
    without = motion_residual(current, rows, past, standard="h264")
    assert (without.planes[0][:4, :4] == -3).all()
    assert (without.planes[1][:4, :4] == -2).all()


def test_blocks_without_residual_are_marked_and_left_alone() -> None:
    current = picture(1)
    before = tuple(plane.copy() for plane in current)
    before[0][16:24, 32:40] += 9  # the third 8x8 block of the second row of macroblocks
    before[2][4:8, 4:8] += 9
    rows = np.array([[x, y, 16, 16, 0, 0, -1] for y in (0, 16, 32) for x in (0, 16, 32)], np.int16)
    past = [Reference(samples=ReferenceSamples(before))]
    room = tuple(np.full(plane.shape, 77, np.int16) for plane in current)
    residual = motion_residual(current, rows, past, standard="h264", out=room)
    expected = np.zeros((3, 6, 8), bool)
    expected[:, :, 6:] = True  # no vectors: predicted intra
    expected[0, 2:4, 4:6] = expected[2, :2, :2] = True  # whole blocks of 16x16 are marked
    np.testing.assert_array_equal(residual.coded, expected)
    assert (room[0][:16, :48] == 77).all()
    exact = [now.astype(int) - then for now, then in zip(current, before, strict=True)]
    for plane, difference in zip(residual.planes, exact, strict=True):
        width = plane.shape[1] * 3 // 4
        np.testing.assert_array_equal(plane[:, :width], difference[:, :width])


def test_quantiser_steps_and_dead_zone_limits() -> None:
    steps = quantiser_step(np.array([0, 4, 5, 6, 10, 28, 51]))
    np.testing.assert_allclose(steps, [0.625, 1.0, 1.125, 1.25, 2.0, 16.0, 224.0])
    assert chroma_quantiser(np.array([0, 29, 30, 38, 51])).tolist() == [0, 29, 29, 35, 39]
    limits = dead_zones()[:, 28 + 128]
    np.testing.assert_allclose(limits, [16 * (16 / 8) ** 2, 16 * (16 / 8) ** 2])
    ten = dead_zones(10)[:, 40 + 128]
    np.testing.assert_allclose(ten, limits * 16)  # four times the step


def test_implicit_weights() -> None:
    assert implicit_weight(1, 1) == 32
    assert implicit_weight(1, 2) == 21
    assert implicit_weight(2, 1) == 42
    assert implicit_weight(1, 3) == 16


# --- hostile input -----------------------------------------------------------------------------------------


def test_vectors_that_make_no_sense_are_left_out() -> None:
    current = picture(0)
    past = [reference(1)]
    rows = np.array(
        [
            [-16, 0, 16, 16, 0, 0, -1],
            [64, 0, 16, 16, 0, 0, -1],
            [0, 48, 16, 16, 0, 0, -1],
            [4, 0, 16, 16, 0, 0, -1],
            [0, 0, 32, 16, 0, 0, -1],
            [0, 0, 0, -8, 0, 0, 1],
            [32767, 32767, 16, 16, 0, 0, -1],
        ],
        np.int16,
    )
    residual = motion_residual(current, rows, past, standard="h264")
    assert not residual.field.inter.any()
    rng = np.random.default_rng(2)
    noise = rng.integers(-(2**15), 2**15, (4000, 7)).astype(np.int16)
    noise[:, :2] = rng.integers(-2, 8, (4000, 2)) * 8
    noise[:, 2:4] = rng.choice([8, 16], (4000, 2))
    for standard in ("h264", "mpeg2", "mpeg4", "mpeg4_qpel"):
        motion_residual(current, noise, past, [reference(2)], standard=standard)


def test_a_block_over_the_picture_edge_counts_inside_only() -> None:
    current, before = picture(0, (20, 24)), picture(1, (20, 24))
    rows = np.array([[16, 16, 16, 16, 3, 1, -1]], np.int16)
    residual = motion_residual(current, rows, [Reference(samples=ReferenceSamples(before))], standard="h264")
    expected = oracle.h264_luma(before[0].astype(np.int64), 16, 16, 4, 8, 1, 3)
    np.testing.assert_array_equal(residual.planes[0][16:, 16:], current[0][16:, 16:].astype(int) - expected)
    assert residual.field.inter.sum() == 2


def test_wrong_arguments_are_refused() -> None:
    current = picture(0)
    past = [reference(1)]
    with pytest.raises(UsageError, match="5 past"):
        motion_residual(current, None, past * 5, standard="h264")
    with pytest.raises(UsageError, match="does not match"):
        motion_residual(current, None, [Reference(samples=ReferenceSamples(picture(1, (32, 64))))], standard="h264")
    with pytest.raises(UsageError, match="uint16"):
        motion_residual(current, None, past, standard="h264", bit_depth=10)
    with pytest.raises(UsageError, match="qp"):
        motion_residual(current, None, past, standard="mpeg2", qp=np.zeros((3, 4), np.int8))
    with pytest.raises(UsageError, match="one value per 16x16"):
        motion_residual(current, None, past, standard="h264", qp=np.zeros((3, 5), np.int8))
    with pytest.raises(UsageError, match="rounding"):
        motion_residual(current, None, past, standard="h264", rounding=1)
    with pytest.raises(UsageError, match="bit_depth"):
        motion_residual(current, None, past, standard="h264", bit_depth=7)
    with pytest.raises(UsageError, match="form a picture"):
        motion_residual((current[0], current[1], current[2][1:]), None, [], standard="h264")


def test_a_reference_serves_picture_after_picture() -> None:
    """Half samples that an earlier picture left are those of a new reference; room is written over."""
    vectors = [np.array([[x, y, 16, 16, 4 + k, 9 - k, -1] for y in (0, 16, 32) for x in (0, 32)]) for k in range(4)]
    kept = reference(1)
    room = None
    for k, table in enumerate(vectors):
        expected = motion_residual(picture(k), table.astype(np.int16), [reference(1)], standard="h264")
        got = motion_residual(picture(k), table.astype(np.int16), [kept], standard="h264", out=room)
        room = got.planes
        for channel in range(3):
            np.testing.assert_array_equal(got.planes[channel], expected.planes[channel])
    # another picture in its place must not be predicted from its half samples
    other = Reference(samples=kept.samples.replace(picture(2)))
    assert other.samples is kept.samples
    table = vectors[1].astype(np.int16)
    expected = motion_residual(picture(0), table, [reference(2)], standard="h264")
    got = motion_residual(picture(0), table, [other], standard="h264")
    np.testing.assert_array_equal(got.planes[0], expected.planes[0])
    assert not np.array_equal(
        got.planes[0], motion_residual(picture(0), table, [reference(1)], standard="h264").planes[0]
    )
    larger = picture(3, (64, 64))
    assert kept.samples.replace(larger) is not kept.samples
    np.testing.assert_array_equal(kept.samples.replace(larger).planes[1], larger[1])
