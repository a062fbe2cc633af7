"""What pictures carry along the references that the bitstream names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import codecmeta
from codecmeta.h264 import ResidualReader
from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.options import MAPS
from codecmeta.residual.carried import carried_energy
from codecmeta.residual.h264_source import H264Source
from codecmeta.residual.source import Evidence
from tests.codecmeta.h264.streams import CLIPS, extradata, packets
from tests.codecmeta.h264.test_motion_vectors import HEIGHT, WIDTH, encode, lay_out, read_motion

SETTINGS = "ref=5:bframes=3:b-pyramid=normal:b-adapt=0:keyint=100"
ROWS, COLUMNS = HEIGHT // 4, WIDTH // 4


def carry_slowly(
    states: dict[int, NDArray[Any]],
    numbers: NDArray[np.int64],
    vectors: NDArray[np.int64],
    own: NDArray[Any],
) -> NDArray[np.float64]:
    """Moments (2, 3, rows, columns) of a picture, cell by cell.

    Args:
        states: moments of the pictures before, by number.
        numbers: (2, rows, columns), which picture each cell is predicted from.
        vectors: (2, rows, columns, 2), in quarter samples.
        own: moments of the picture's own residual.
    """
    carried = own.astype(np.float64)
    for row in range(ROWS):
        for col in range(COLUMNS):
            found = []
            for side in range(2):
                number = int(numbers[side, row, col])
                if number > 0:
                    dx, dy = vectors[side, row, col].tolist()
                    y = min(max(row + int(np.floor(dy / 16 + 0.5)), 0), ROWS - 1)
                    x = min(max(col + int(np.floor(dx / 16 + 0.5)), 0), COLUMNS - 1)
                    found.append(states[number][:, :, y, x])
            for channel in range(3):
                if found and own[0, channel, row, col] == 0:
                    carried[:, channel, row, col] = np.mean([moments[:, channel] for moments in found], axis=0)
    return carried


@pytest.mark.parametrize("nearest", [False, True])
def test_what_is_carried_comes_from_the_pictures_that_blocks_are_predicted_from(tmp_path: Path, nearest: bool) -> None:
    """Against one cell after the other; taking the picture decoded before instead gives something else."""
    path = encode(tmp_path / "clip.mp4", SETTINGS)
    reader = ResidualReader(extradata(path))
    states: dict[int, NDArray[np.float64]] = {}
    energies = []
    for (frame, arrays, coded, table), packet in zip(read_motion(path), packets(path), strict=True):
        _, vectors = lay_out(table, 4 * coded.sequence.width_mbs, 4 * coded.sequence.height_mbs)
        numbers = (
            arrays.picture.reshape(2, ROWS // 2, COLUMNS // 2).repeat(2, axis=1).repeat(2, axis=2).astype(np.int64)
        )
        if nearest:
            numbers[numbers > 0] = frame.number - 1
        cells = reader.measure(packet, block=None, cells=True).cells
        own = np.stack([cells.power, cells.mean])
        states[frame.number] = carry_slowly(states, numbers, vectors, own)
        moments = np.moveaxis(states[frame.number], (2, 3), (0, 1)).astype(np.float32)
        state = CellMoments(moments=np.ascontiguousarray(moments))
        energies.append(carried_energy(state, luma=(HEIGHT, WIDTH), chroma=(HEIGHT // 2, WIDTH // 2), block=4).energy)
    meta = codecmeta.extract(path, frames="all", pixels=None, maps=MAPS)
    assert meta.energy_carried is not None
    assert meta.info["verdict"]["pictures_decoded"] == 0
    expected = np.array(energies)[meta.frame_packet]
    agreement = np.isclose(meta.energy_carried, expected, rtol=1e-3, atol=1e-3).mean()
    assert agreement == 1 if not nearest else agreement < 0.9


def test_a_frame_alone_carries_what_it_does_among_all(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", f"{SETTINGS}:open-gop=1".replace("keyint=100", "keyint=12"))
    every = codecmeta.extract(path, frames="all", pixels=64, motion=True, maps=MAPS)
    for frame in (0, 7, 12, 13, 26, 39):
        alone = codecmeta.extract(path, frames=[frame], pixels=None, motion=True, maps=MAPS)
        assert alone.energy_carried is not None and every.energy_carried is not None
        assert alone.mv is not None and every.mv is not None and every.mv_offset is not None
        np.testing.assert_array_equal(alone.energy_carried[0], every.energy_carried[frame])
        np.testing.assert_array_equal(alone.mv, every.mv[every.mv_offset[frame] : every.mv_offset[frame + 1]])


def test_interlaced_pictures_are_carried_along_the_decoders_vectors() -> None:
    meta = codecmeta.extract(CLIPS / "mbaff.mp4", frames="all", pixels=None, motion=True, maps=MAPS)
    assert meta.info["signals"]["motion"]["source"] == "decoder"
    assert meta.info["signals"]["carried"] == {"source": "bitstream", "along": {"source": "decoder"}}
    assert meta.info["verdict"]["pictures_decoded"] > 0


def test_columns_that_are_coded_and_not_shown_make_no_difference_to_those_that_are(tmp_path: Path) -> None:
    moments = []
    for hidden in (0, 32):
        path = encode(tmp_path / f"{hidden}.mp4", f"{SETTINGS}:crop-rect=0,0,{hidden},0")
        source = H264Source(width=WIDTH - hidden, height=HEIGHT, form=None, extradata=extradata(path), carries=True)
        for packet in packets(path)[:2]:
            reading = source.read(Evidence(payload=packet), block=4, energy=False, cells=True)
        assert reading.carried is not None and reading.maps.type == "P"
        moments.append(reading.carried.moments)
    # no vector points farther than 32 samples to the right
    shared = slice(0, (WIDTH - 64) // 4)
    np.testing.assert_array_equal(moments[0][:, shared], moments[1][:, shared])


def test_frames_that_nobody_tells_the_vectors_of_are_named(tmp_path: Path) -> None:
    """A key picture with a damaged header: B frames that follow are not followed, and the decoder puts none out."""
    path = encode(tmp_path / "clip.mp4", "ref=4:bframes=3:b-pyramid=normal:b-adapt=0:keyint=20:min-keyint=20")
    key = packets(path)[20]
    content = path.read_bytes()
    at = content.index(key)
    path.write_bytes(content[: at + 5] + b"\xff" * 4 + content[at + 9 :])
    meta = codecmeta.extract(path, frames="all", maps=("innovation",), pixels=None, motion=True)
    assert meta.mv_offset is not None
    signal = meta.info["signals"]["motion"]
    empty = np.flatnonzero(np.diff(meta.mv_offset) == 0)
    assert signal["unknown_frames"] == [row for row in empty if meta.frame_type[row] == "B"]
    assert len(signal["unknown_frames"]) > 5


def test_a_damaged_frame_costs_the_rest_of_its_gop_what_is_exact(tmp_path: Path) -> None:
    """All other frames carry what they do without it, and the record says which way each frame was carried."""
    path = encode(tmp_path / "clip.mp4", SETTINGS.replace("keyint=100", "keyint=10:min-keyint=10"))
    whole = codecmeta.extract(path, frames="all", pixels=None, motion=True, maps=MAPS)
    assert whole.info["signals"]["carried"]["along"] == {"source": "bitstream"}
    content, damaged = path.read_bytes(), packets(path)[15]
    at = content.index(damaged) + len(damaged) // 2
    path.write_bytes(content[:at] + b"\xa5" * 8 + content[at + 8 :])
    for pixels in (None, 64):
        meta = codecmeta.extract(path, frames="all", pixels=pixels, motion=True, maps=MAPS)
        along = meta.info["signals"]["carried"]["along"]["per_frame"]
        assert along == ["decoder" if 15 <= packet < 20 else "bitstream" for packet in meta.frame_packet]
        assert meta.energy_carried is not None and whole.energy_carried is not None
        exact = np.array(along) == "bitstream"
        np.testing.assert_array_equal(meta.energy_carried[exact], whole.energy_carried[exact])
