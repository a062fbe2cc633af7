from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codecmeta.errors import UsageError
from codecmeta.record.energy import measure_energy
from codecmeta.record.texture import texture_energy, texture_planes
from codecmeta.simd.intra_4x4 import OWN_MEAN, intra_residual


def best_of_four(plane: Any, top: int = 255) -> Any:
    """Block by block in plain NumPy."""
    p = plane.astype(np.int64)
    out = np.zeros(p.shape, np.int64)
    for y in range(0, p.shape[0], 4):
        for x in range(0, p.shape[1], 4):
            block = p[y : y + 4, x : x + 4]
            above = p[y - 1, x : x + 4][None] if y else None
            left = p[y : y + 4, x - 1][:, None] if x else None
            known = np.concatenate([v.ravel() for v in (above, left) if v is not None] or [block.ravel()])
            dc = (known.sum() + known.size // 2) // known.size
            candidates = [np.full(block.shape, dc)]
            if above is not None:
                candidates.append(np.broadcast_to(above, block.shape))
            if left is not None:
                candidates.append(np.broadcast_to(left, block.shape))
            if above is not None and left is not None:
                candidates.append(np.clip(above + left - p[y - 1, x - 1], 0, top))
            residuals = [block - c for c in candidates]
            out[y : y + 4, x : x + 4] = min(residuals, key=lambda r: int((r**2).sum()))
    return out


@pytest.mark.parametrize("shape", [(32, 48), (30, 45), (4, 4), (1, 9), (3, 2)])
@pytest.mark.parametrize("top", [255, 1023])
def test_residual_against_plain_numpy(shape: tuple[int, int], top: int) -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-9, 10, shape), axis=1) + np.cumsum(rng.integers(-9, 10, shape), axis=0)
    plane = np.clip(smooth + top // 2, 0, top).astype(np.uint8 if top == 255 else np.uint16)
    empty = np.zeros((0, 0), plane.dtype)
    got = texture_planes((plane, empty, plane), bit_depth=8 if top == 255 else 10)
    np.testing.assert_array_equal(got[0], best_of_four(plane, top))
    np.testing.assert_array_equal(got[2], got[0])
    assert got[1].shape == (0, 0)


def test_each_mode_removes_what_it_predicts() -> None:
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    for pattern in (columns * 3, rows * 3, columns * 2 + rows * 3):
        plane = (pattern + 20).astype(np.uint8)
        residual = texture_planes((plane, plane[:0], plane[:0]))[0]
        assert not residual[4:, 4:].any()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    assert (texture_planes((noise, noise[:0], noise[:0]))[0][4:, 4:] != 0).mean() > 0.9


def test_a_block_without_neighbours() -> None:
    plane = np.full((8, 8), 60, np.uint8)
    plane[4:, 4:] = 70
    nothing = np.zeros((0, 0), np.bool_)
    out = np.zeros(plane.shape, np.int16)
    intra_residual(plane, nothing, 0, 0, 255, 128, out)
    assert (out[:4, :4] == 60 - 128).all()
    intra_residual(plane, nothing, 0, 0, 255, OWN_MEAN, out)
    assert not out[:4, :4].any()


def test_covered_blocks_are_left_alone() -> None:
    plane = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    whole = best_of_four(plane)
    covered = np.zeros((2, 2), np.bool_)
    covered[0, 1] = True
    out = np.full(plane.shape, 77, np.int16)
    intra_residual(plane, covered, 0, 0, 255, OWN_MEAN, out)
    assert (out[:8, 8:] == 77).all()
    out[:8, 8:] = whole[:8, 8:]
    np.testing.assert_array_equal(out, whole)
    # a chroma plane of 4:2:0: its 4x4 block belongs to one block of luma
    cells = np.zeros((4, 4), np.bool_)
    cells[1, 2] = True
    out = np.full(plane.shape, 77, np.int16)
    intra_residual(plane, cells, 1, 1, 255, OWN_MEAN, out)
    assert (out[4:8, 8:12] == 77).all()
    assert (out == 77).sum() == 16


@pytest.mark.parametrize("block", [4, 8])
def test_energy_of_frames(block: int) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (2, 29, 42, 3)).astype(np.uint8)
    got = texture_energy(frames, block=block)
    assert got.energy.shape == (2, -(-29 // block), -(-42 // block))
    for index, frame in enumerate(frames.astype(np.float64)):
        r, g, b = frame[..., 0], frame[..., 1], frame[..., 2]
        exact = (
            0.299 * r + 0.587 * g + 0.114 * b,
            128 - 0.168736 * r - 0.331264 * g + 0.5 * b,
            128 + 0.5 * r - 0.418688 * g - 0.081312 * b,
        )
        planes = tuple(np.clip(np.rint(p), 0, 255).astype(np.uint8) for p in exact)
        residuals = tuple(best_of_four(p).astype(np.int16) for p in planes)
        expected = measure_energy(residuals, block=block)
        # the conversion in integers of 1/256 is off by one here and there
        assert np.corrcoef(got.energy[index].ravel(), expected.energy.ravel())[0, 1] > 0.999
        np.testing.assert_allclose(got.energy[index].mean(), expected.energy.mean(), rtol=1e-3)
        np.testing.assert_allclose(got.range[index], expected.range, rtol=0.05, atol=0.01)


def test_grey_frames_have_no_chroma_texture() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1)).astype(np.uint8)
    got = texture_energy(np.repeat(grey, 3, axis=3))
    np.testing.assert_allclose(got.energy.mean(), 1.0, rtol=1e-5)  # one channel varies
    flat = texture_energy(np.full((1, 32, 32, 3), 128, np.uint8))
    assert not flat.energy.any()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="uint8"):
        texture_energy(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(UsageError, match="required"):
        texture_energy(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="block"):
        texture_energy(np.zeros((1, 8, 8, 3), np.uint8), block=16)


def test_rows_may_be_apart() -> None:
    wide = np.random.default_rng(3).integers(0, 256, (24, 64)).astype(np.uint8)
    part = wide[:, 3:43]
    out = np.empty(part.shape, np.int16)
    intra_residual(part, np.zeros((0, 0), np.bool_), 0, 0, 255, OWN_MEAN, out)
    np.testing.assert_array_equal(out, best_of_four(part))
    assert not np.array_equal(out, best_of_four(wide[:, 4:44]))
