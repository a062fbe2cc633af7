"""Bit costs in the form of codec-video-prep: keys, shapes, and counts that add up to the slice data."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import codecmeta
from codecmeta.hevc import ResidualReader
from tests.codecmeta.h264.streams import extradata
from tests.codecmeta.hevc.streams import CLIPS, shown_packets
from tests.codecmeta.hevc.test_exactness import slice_data_bits


def test_hevc_costs_add_up_to_the_slice_data() -> None:
    name = "main_default.mp4"
    reader = ResidualReader(extradata(CLIPS / name))
    costs = codecmeta.bit_costs(CLIPS / name, frames=[0, 3, 4, 11])
    assert [frame["frame_idx"] for frame in costs] == [0, 3, 4, 11]
    shown = shown_packets(CLIPS / name)
    for frame in costs:
        bits = frame["bitcost"]
        assert (frame["width"], frame["height"], frame["codec_name"]) == (176, 144, "hevc")
        assert bits["ctu_bit_cost"].shape == (bits["ctb_height"], bits["ctb_width"])
        assert bits["ctu_bit_cost"].dtype == np.int32
        assert bits["sub_mb_bit_cost"].shape == (36, 44) == (bits["sub_height"], bits["sub_width"])
        total = slice_data_bits(reader, shown[frame["frame_idx"]])
        assert bits["ctu_bit_cost"].sum() == total
        np.testing.assert_allclose(bits["sub_mb_bit_cost"].sum(dtype=np.float64), total, rtol=1e-5)
    assert {frame["pict_type"] for frame in costs} <= set("IPB")


def test_small_blocks_lie_in_their_units() -> None:
    """A picture whose size is no multiple of 16: the bits of a cell are those of its blocks inside."""
    costs = codecmeta.bit_costs(CLIPS / "odd_size.mp4", frames=[0])
    bits = costs[0]["bitcost"]
    side = 1 << bits["log2_ctb_size"]
    small = bits["sub_mb_bit_cost"]
    for row in range(bits["ctb_height"]):
        for column in range(bits["ctb_width"]):
            block = small[row * side // 4 : (row + 1) * side // 4, column * side // 4 : (column + 1) * side // 4]
            assert abs(block.sum(dtype=np.float64) - bits["ctu_bit_cost"][row, column]) < 0.01


def test_h264_costs_are_those_of_the_record(data: Path) -> None:
    costs = codecmeta.bit_costs(data / "event_h264.mp4", frames="uniform:5")
    meta = codecmeta.extract(data / "event_h264.mp4", frames="uniform:5", pixels=None, maps=("innovation",))
    assert meta.mb_bits is not None
    assert [frame["pict_type"] for frame in costs] == list(meta.frame_type)
    for frame, expected in zip(costs, meta.mb_bits, strict=True):
        bits = frame["bitcost"]
        assert bits["mb_bit_cost"].shape == (bits["mb_height"], bits["mb_stride"])
        assert bits["mb_stride"] == bits["mb_width"] + 1
        assert not bits["mb_bit_cost"][:, -1].any()
        np.testing.assert_array_equal(bits["mb_bit_cost"][:, :-1], expected)


def test_the_example_takes_the_place_of_the_patched_reader(data: Path) -> None:
    example = runpy.run_path(str(data.parent / "examples" / "bit_costs.py"))
    processor = ModuleType("video_processor")
    example["replace_reader"](processor)
    found = processor._read_video_fast_selected(str(data / "pan_hevc.mp4"), [0, 7], thread_count=1, export_bitcost=1)
    assert [frame["frame_idx"] for frame in found] == [0, 7]
    assert found[0]["bitcost"]["ctu_bit_cost"].shape == (3, 5)
    with pytest.raises(ValueError, match="export_pixels"):
        processor._read_video_fast_selected(str(data / "pan_hevc.mp4"), [0], export_pixels=1)


def test_other_codecs_are_refused(data: Path) -> None:
    with pytest.raises(codecmeta.SourceError, match="h264 and hevc, not from vp9") as caught:
        codecmeta.bit_costs(data / "objects_vp9.webm")
    assert caught.value.code == "no_signal"
    with pytest.raises(codecmeta.SamplingError):
        codecmeta.bit_costs(data / "event_h264.mp4", frames="some")
