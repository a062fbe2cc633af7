"""The comparison of towers counts what is computed and times both."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from bench.tower_reuse import compare, write_row
from tests.compress.models.material import sharp_model, video_meta


@pytest.mark.filterwarnings("ignore:this LlavaOnevisionForConditionalGeneration was not called")
def test_a_comparison() -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta(frames=6)
    row = compare(model, [meta, meta], 20.0, 1)
    assert 0 < row["patches"] < 0.9
    assert row["macs"] == pytest.approx(row["patches"])  # all patches are attended to
    assert compare(model, [meta], 0.0, 1)["patches"] > row["patches"]
    assert row["ratio"] > 0 and row["null"] > 0
    row |= {"model": "tiny", "videos": "two"}
    assert write_row(row).startswith(f"| tiny | two | {100 * row['patches']:.0f} % |")
