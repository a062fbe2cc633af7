"""Every residual sample equals what a decoder with its prediction removed outputs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from codecmeta.errors import BitstreamError
from codecmeta.h264 import MB_TYPE_NAMES, ResidualReader, is_intra
from codecmeta.h264.tables import build_tables, constants
from tests.codecmeta.h264.streams import CLIPS, clipped, digests, extradata, packets, pictures

EXPECTED: dict[str, list[list[str]]] = json.loads((CLIPS / "residual_digests.json").read_text())
REAL = (
    "bbb_h264_main_p_only.mp4",
    "carpark_overhead_h264_baseline.mp4",
    "sport_juggle_h264_high.mp4",
    "street_scenecuts_bikes_h264.mp4",
    "derived/bedroom_h264_cavlc_multislice.mp4",
    "edge/bbb_raw_annexb_nopts.264",
    "edge/rotated_bbb_h264.mp4",
)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_residual_types_and_qp(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    shown = pictures(CLIPS / name)
    assert len(shown) == len(EXPECTED[name])
    for packet in packets(CLIPS / name):
        reader.observe(packet)
    for own, expected in zip(shown, EXPECTED[name], strict=True):
        picture = reader.read(own.packet)
        assert digests(picture) == expected
        assert own.kind in picture.slice_types
        # FFmpeg counts QP from 0 at every bit depth
        qp = own.qp[: picture.qp.shape[0], : picture.qp.shape[1]] - 6 * (picture.bit_depth[0] - 8)
        np.testing.assert_array_equal(picture.qp, qp)


@pytest.mark.parametrize("name", REAL)
def test_real_clips(name: str, shared: Path) -> None:
    path = shared / "clips" / name
    expected = np.load(shared / "h264" / "real" / f"{path.name}.residual.npz")
    reader = ResidualReader(extradata(path))
    shown = pictures(path)
    for packet in packets(path)[:1]:
        reader.observe(packet)
    for number, index in enumerate(expected["frame_index"]):
        picture = reader.read(shown[index].packet)
        np.testing.assert_array_equal(
            picture.qp, shown[index].qp[: picture.qp.shape[0], : picture.qp.shape[1]], err_msg=f"picture {index}"
        )
        for plane, key, size in zip(clipped(picture), ("y", "cb", "cr"), (8, 4, 4), strict=True):
            total, square = expected[f"{key}_sum"][number], expected[f"{key}_sqsum"][number]
            padded = np.zeros((total.shape[0] * size, total.shape[1] * size), np.int64)
            padded[: plane.shape[0], : plane.shape[1]] = plane
            blocks = padded.reshape(total.shape[0], size, total.shape[1], size)
            whole = square >= 0
            np.testing.assert_array_equal(blocks.sum((1, 3))[whole], total[whole])
            np.testing.assert_array_equal((blocks**2).sum((1, 3))[whole], square[whole])


def test_a_changed_constant_shows() -> None:
    name = "high_default.mp4"
    changed = copy.deepcopy(constants())
    changed["rangeTabLPS"]["table"][20][1] += 1
    reader = ResidualReader(extradata(CLIPS / name))
    reader._tables = build_tables(changed)
    same = 0
    for own, expected in zip(pictures(CLIPS / name), EXPECTED[name], strict=True):
        try:
            same += digests(reader.read(own.packet)) == expected
        except BitstreamError:
            continue
    assert same < len(EXPECTED[name])


@pytest.mark.parametrize("name", ["high_default.mp4", "baseline_cavlc.mp4"])
def test_a_flipped_bit_shows(name: str) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    own = pictures(CLIPS / name)[0]
    wrong = bytearray(own.packet)
    wrong[len(wrong) // 2] ^= 16
    try:
        picture = reader.read(bytes(wrong))
    except BitstreamError:
        return
    assert digests(picture) != EXPECTED[name][0]


def test_macroblock_maps() -> None:
    name = "main_cabac_b.mp4"
    reader = ResidualReader(extradata(CLIPS / name))
    kinds = set()
    for own in pictures(CLIPS / name):
        picture = reader.read(own.packet)
        kinds |= {MB_TYPE_NAMES[kind] for kind in np.unique(picture.mb_type)}
        coded = np.abs(picture.y.reshape(9, 16, 11, 16)).max((1, 3)) > 0
        skipped = np.isin(picture.mb_type, [MB_TYPE_NAMES.index("P_Skip"), MB_TYPE_NAMES.index("B_Skip")])
        assert not (coded & skipped).any()
        assert (picture.cbp[skipped] == 0).all()
        assert (picture.mb_bits[coded] > 0).all()
        assert picture.mb_bits.sum() <= 8 * len(own.packet)
        if own.kind == "I":
            assert is_intra(picture.mb_type).all()
    assert {"I_4x4", "I_16x16", "P_16x16", "P_Skip", "B_16x16", "B_Skip"} <= kinds
    assert "not coded" not in kinds


def test_pictures_may_be_read_in_any_order() -> None:
    name = "main_cabac_b.mp4"
    reader = ResidualReader(extradata(CLIPS / name))
    shown = pictures(CLIPS / name)
    for index in (7, 3, 12, 3):
        assert digests(reader.read(shown[index].packet)) == EXPECTED[name][index]
