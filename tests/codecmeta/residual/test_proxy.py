"""The proxy residual depends on a picture and its predecessor, and on nothing that was encoded before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from codecmeta import extract


def test_a_frame_alone_and_after_others(data: Path) -> None:
    """A rate control that remembers would choose another quantiser."""
    clip = data / "objects_vp9.webm"
    some = extract(clip, frames=[3, 9, 31, 40], pixels=None, residual="proxy")
    assert some.info["signals"]["innovation"]["source"] == "proxy"
    for row, frame in ((1, 9), (3, 40)):
        alone = extract(clip, frames=[frame], pixels=None, residual="proxy")
        assert alone.residual_power is not None
        assert some.residual_power is not None
        assert alone.residual_power.any()
        assert np.array_equal(alone.residual_power[0], some.residual_power[row])
