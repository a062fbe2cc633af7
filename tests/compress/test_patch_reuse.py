"""Which patches are static, against a loop over places and frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress import PatchReuse
from compress.errors import ConfigError, ShapeError


def pixels(*, frames: int = 7, grid: tuple[int, int] = (3, 4), size: int = 12) -> torch.Tensor:
    """Patches that drift, jump and stand still."""
    rng = np.random.default_rng(0)
    still = rng.integers(-90, 90, (1, *grid, size))
    drift = np.arange(frames)[:, None, None, None] * rng.choice((0, 0, 1.5, 4), (*grid, 1))
    jumps = np.cumsum(rng.random((frames, *grid, 1)) < 0.1, axis=0) * 40
    return torch.from_numpy(still + drift + jumps).float()


def loop(patches: torch.Tensor, tau: float) -> list[int]:
    """Walk along the frames of each place: int (T * N,), the patch that each one is computed as."""
    frames, rows, cols, _ = patches.shape
    flat = patches.double().reshape(frames, rows * cols, -1)
    found = [0] * (frames * rows * cols)
    for place in range(rows * cols):
        anchor = 0
        for frame in range(frames):
            difference = flat[frame, place] - flat[anchor, place]
            if float(difference.square().mean()) ** 0.5 > tau:
                anchor = frame
            found[frame * rows * cols + place] = anchor * rows * cols + place
    return found


@pytest.mark.parametrize("tau", (0, 3, 6, 25))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64))
def test_runs_equal_a_loop_over_places(tau: float, dtype: torch.dtype) -> None:
    patches = pixels().to(dtype)
    result = PatchReuse(tau=tau).before_encoder(patches)
    expected = loop(patches, tau)
    plan = result.plan
    assert plan.keep[plan.origin].tolist() == expected
    assert plan.keep.tolist() == sorted(set(expected))
    assert result.achieved == result.nominal == plan.count_out
    assert expected != loop(patches, 2 * tau + 2)


def test_each_difference_is_from_the_anchor_so_that_slow_changes_are_seen() -> None:
    patches = torch.arange(10.0)[:, None, None, None].expand(10, 1, 1, 5)
    result = PatchReuse(tau=3).before_encoder(patches)
    assert result.plan.keep.tolist() == [0, 4, 8]
    torch.testing.assert_close(result.apply(torch.arange(10.0)[:, None]).flatten(), torch.tensor([1.5, 5.5, 8.5]))


def test_extremes_compute_everything_that_differs_or_the_first_frame_only() -> None:
    patches = pixels()
    count = patches[0, ..., 0].numel()
    assert PatchReuse(tau=float("inf")).before_encoder(patches).plan.keep.tolist() == list(range(count))
    noisy = patches + torch.rand(patches.shape, generator=torch.Generator().manual_seed(0))
    assert PatchReuse(tau=0).before_encoder(noisy).achieved == len(patches) * count
    assert PatchReuse(tau=0).before_encoder(patches[:1].expand(4, -1, -1, -1)).achieved == count


def test_a_damaged_patch_is_computed() -> None:
    patches = pixels()[:1].repeat(3, 1, 1, 1)
    patches[1, 0, 0, 0] = torch.nan
    assert PatchReuse().before_encoder(patches).plan.keep.tolist() == [*range(12), 12, 24]


def test_wrong_settings_and_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"tau is -1; .* at least 0"):
        PatchReuse(tau=-1)
    with pytest.raises(ConfigError, match="tau is nan"):
        PatchReuse(tau=float("nan"))
    for wrong in (torch.zeros(2, 3, 4), torch.zeros(0, 2, 2, 3), torch.zeros(1, 2, 2, 3, dtype=torch.int64)):
        with pytest.raises(ShapeError, match=r"allowed is floating point \(T, rows, cols, P\)"):
            PatchReuse().before_encoder(wrong)
