"""Quantisers: the standard's own at any bit depth, whoever tells them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codecmeta import extract
from tests.codecmeta.make_video import write_video


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_decoder_and_bitstream_agree(tmp_path: Path, pix_fmt: str) -> None:
    """With the residual the packet tells them, without it the decoder does."""
    path = write_video(tmp_path / "clip.mp4", pix_fmt=pix_fmt, options={"qp": "20"})
    own = extract(path, frames=[0, 7], pixels=None, qp=True)
    decoded = extract(path, frames=[0, 7], pixels=None, qp=True, residual="none")
    assert own.info["signals"]["qp"]["source"] == "bitstream"
    assert decoded.info["signals"]["qp"]["source"] == "decoder"
    assert own.qp is not None
    assert decoded.qp is not None
    assert np.array_equal(own.qp, decoded.qp)
    assert own.qp.max() <= 30
