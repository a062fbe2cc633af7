"""Block means without planes are those of the planes."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from codecmeta.errors import UsageError
from codecmeta.hevc import ResidualReader
from codecmeta.record.energy import measure_energy
from tests.codecmeta.h264.streams import extradata, packets
from tests.codecmeta.hevc.streams import CLIPS

NAMES = sorted(path.name for path in CLIPS.iterdir() if path.suffix not in {".json", ".md"})


@pytest.mark.parametrize("block", [4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_moments_are_those_of_the_planes(name: str, block: Literal[4, 8]) -> None:
    reader = ResidualReader(extradata(CLIPS / name))
    for packet in packets(CLIPS / name):
        planes = reader.read(packet)
        expected = measure_energy((planes.y, planes.cb, planes.cr), block=block)
        found = reader.measure(packet, block=block, cells=True)
        for field in ("energy", "power", "mean", "range"):
            np.testing.assert_array_equal(getattr(found.energy, field), getattr(expected, field), err_msg=field)
        fine = measure_energy((planes.y, planes.cb, planes.cr), block=4)
        only = reader.measure(packet, block=None, cells=True)
        assert only.energy is None
        for cells in (found.cells, only.cells):
            np.testing.assert_array_equal(cells.power, fine.power)
            np.testing.assert_array_equal(cells.mean, fine.mean)
        for field in ("mb_type", "qp", "mb_bits"):
            np.testing.assert_array_equal(getattr(found, field), getattr(planes, field))


def test_other_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="choose from 4, 8"):
        ResidualReader().measure(b"", block=16)
