"""The fast block means equal those of the planes."""

from __future__ import annotations

import numpy as np
import pytest

from codecmeta.errors import UsageError
from codecmeta.h264 import ResidualReader
from codecmeta.record.energy import measure_energy
from tests.codecmeta.h264.streams import CLIPS, extradata, packets

CLIP_NAMES = sorted(path.name for path in CLIPS.iterdir() if path.suffix in {".mp4", ".mkv", ".ts", ".h264"})


@pytest.mark.parametrize("name", CLIP_NAMES)
@pytest.mark.parametrize("block", [4, 8])
def test_moments_equal_those_of_the_planes(name: str, block: int) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    for packet in packets(CLIPS / name):
        planes = reader.read(packet)
        expected = measure_energy((planes.y, planes.cb, planes.cr), block=block)
        measured = reader.measure(packet, block=block, cells=True)
        np.testing.assert_array_equal(measured.energy.power, expected.power)
        np.testing.assert_array_equal(measured.energy.mean, expected.mean)
        np.testing.assert_array_equal(measured.energy.range, expected.range)
        np.testing.assert_allclose(measured.energy.energy, expected.energy, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(measured.mb_type, planes.mb_type)
        cells = measure_energy((planes.y, planes.cb, planes.cr), block=4)
        alone = reader.measure(packet, block=None, cells=True)
        assert alone.energy is None
        for got in (measured.cells, alone.cells):
            np.testing.assert_array_equal(got.power, cells.power)
            np.testing.assert_array_equal(got.mean, cells.mean)
        np.testing.assert_array_equal(alone.mb_type, planes.mb_type)


def test_an_unknown_block_size_is_refused() -> None:
    name = "baseline_cavlc.mp4"
    with pytest.raises(UsageError, match="16"):
        ResidualReader(extradata(CLIPS / name)).measure(packets(CLIPS / name)[0], block=16)
