"""The weight-free encoder: equal patches, similar patches, shifts, noise, and LLaVA-OneVision's pooling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.encoders import SpectralEncoder
from compress.encoders.spectral import GRID, PATCH, SIDE, TOKEN_GRID, resize
from compress.errors import ConfigError, ShapeError

ENCODER = SpectralEncoder()


def texture(rng: np.random.Generator, height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Return a smooth random picture: noise on a coarse grid, enlarged."""
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 8 + 1, width // 8 + 1)))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    return fine[0].permute(1, 2, 0).clamp(0, 255).to(torch.uint8).numpy()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)


def features(picture: NDArray[np.uint8]) -> Tensor:
    return ENCODER.encode(picture[None])[0]


def oracle(picture: NDArray[np.uint8], row: int, col: int) -> NDArray[np.float64]:
    """Compute the feature of one patch in float64, written from the definition."""
    rgb = picture.astype(np.float64) / 127.5 - 1
    y = 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]
    planes = (y, (rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402)

    def own(r: int, c: int) -> NDArray[np.float64]:
        spectra = []
        for plane in planes:
            block = plane[PATCH * r : PATCH * r + PATCH, PATCH * c : PATCH * c + PATCH]
            spectrum = np.zeros((PATCH, PATCH))
            for u in range(PATCH):
                for v in range(PATCH):
                    cu = np.cos(np.pi * u * (np.arange(PATCH) + 0.5) / PATCH) * np.sqrt((1 + (u > 0)) / PATCH)
                    cv = np.cos(np.pi * v * (np.arange(PATCH) + 0.5) / PATCH) * np.sqrt((1 + (v > 0)) / PATCH)
                    spectrum[u, v] = cu @ block @ cv / PATCH
            spectra.append(spectrum)
        bands = np.zeros(9)
        for u in range(PATCH):
            for v in range(PATCH):
                if (u, v) == (0, 0):
                    continue
                octave = 0 if max(u, v) < 2 else 1 if max(u, v) < 5 else 2
                orientation = 0 if u > 2 * v else 1 if v > 2 * u else 2
                bands[3 * octave + orientation] += spectra[0][u, v] ** 2
        for spectrum in spectra:
            spectrum *= 2.0
            spectrum[0, 0] /= 2.0
        return np.concatenate(
            [
                [0.5],
                spectra[0][:6, :6].ravel(),
                spectra[1][:3, :3].ravel(),
                spectra[2][:3, :3].ravel(),
                2.0 * np.sqrt(bands),
            ]
        )

    around = [
        own(r, c)
        for r in range(max(row - 1, 0), min(row + 2, GRID[0]))
        for c in range(max(col - 1, 0), min(col + 2, GRID[1]))
    ]
    return np.concatenate([own(row, col), 0.5 * np.mean(around, axis=0)])


@pytest.mark.parametrize(("row", "col"), [(0, 0), (5, 26), (13, 7)])
def test_feature_follows_its_definition(row: int, col: int) -> None:
    picture = texture(np.random.default_rng(1))
    feature = features(picture)[row * GRID[1] + col].double().numpy()
    np.testing.assert_allclose(feature, oracle(picture, row, col), atol=2e-5)
    assert np.abs(feature - oracle(picture, 20, 20)).max() > 1e-2


def test_equal_patches_in_equal_surroundings_have_equal_features() -> None:
    tile = texture(np.random.default_rng(2), PATCH * 3, PATCH * 3)
    picture = np.tile(tile, (10, 10, 1))[:SIDE, :SIDE]
    grid = features(picture).reshape(*GRID, -1)
    inner = grid[1:-1, 1:-1]
    assert torch.equal(inner[:-3, :-3], inner[3:, 3:])
    assert not torch.allclose(inner[:-1], inner[1:], atol=1e-3)


def test_unused_rim_of_the_picture_does_not_count() -> None:
    picture = texture(np.random.default_rng(3))
    changed = picture.copy()
    changed[GRID[0] * PATCH :] = 255 - changed[GRID[0] * PATCH :]
    assert torch.equal(features(picture), features(changed))
    changed[GRID[0] * PATCH - 1] ^= 128
    assert not torch.equal(features(picture), features(changed))


def test_flat_frames_have_features_and_compare_by_colour() -> None:
    grey, darker, red = (
        features(np.full((SIDE, SIDE, 3), colour, np.uint8))
        for colour in ([128, 128, 128], [116, 116, 116], [220, 30, 30])
    )
    assert torch.allclose(cosine(grey[:1], grey), torch.ones(len(grey)), atol=1e-5)
    assert cosine(grey, darker).min() > 0.97
    assert cosine(grey, red).max() < 0.8


def test_similarity_falls_with_noise_and_with_shift_and_stays_above_that_of_other_patches() -> None:
    rng = np.random.default_rng(4)
    picture = texture(rng, SIDE + 8, SIDE + 8)
    base = features(picture[:SIDE, :SIDE])
    other = cosine(base, base.roll(200, 0)).mean()
    clean = picture[:SIDE, :SIDE]
    noisy = [
        cosine(base, features(np.clip(clean + rng.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)))
        for sigma in (2, 8, 24)
    ]
    shifted = [cosine(base, features(picture[k : SIDE + k, k : SIDE + k])) for k in (1, 2, 4)]
    for series in (noisy, shifted):
        means = [float(similarity.mean()) for similarity in series]
        assert means == sorted(means, reverse=True)
        assert means[-1] > float(other) + 0.1
    assert noisy[0].min() > 0.99
    assert shifted[0].mean() > 0.95


def test_bands_hardly_move_where_coefficients_do() -> None:
    """A fine grating shifted by half its period: the texture bands alone still agree."""
    row = 128 + 60 * np.sign(np.sin(np.arange(SIDE + 2) * np.pi / 2 + 0.1))
    stripes = np.broadcast_to(row[None, :, None], (SIDE, SIDE + 2, 3)).astype(np.uint8)
    base, shifted = features(stripes[:, :SIDE]), features(stripes[:, 2:])
    looks, bands = slice(1, 37), slice(55, 64)
    assert cosine(base[:, bands], shifted[:, bands]).min() > 0.98
    assert cosine(base[:, looks], shifted[:, looks]).max() < 0.5


def test_pooling_is_llava_onevisions() -> None:
    patches = torch.randn(3, 729, 5, generator=torch.Generator().manual_seed(0))
    grid = patches.reshape(3, 27, 27, 5).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(14, 14), mode="bilinear", align_corners=False)
    assert torch.equal(ENCODER.pool(patches), expected.flatten(2).transpose(1, 2))
    aligned = torch.nn.functional.interpolate(grid, size=(14, 14), mode="bilinear", align_corners=True)
    assert not torch.allclose(ENCODER.pool(patches), aligned.flatten(2).transpose(1, 2), atol=1e-3)


def test_pooling_by_hand() -> None:
    """Row i of 14 samples at (i + 0.5) * 27 / 14 - 0.5, the two rows around it by distance."""
    ramp = torch.arange(27.0)[:, None].expand(27, 27).reshape(1, 729, 1)
    pooled = ENCODER.pool(ramp).reshape(TOKEN_GRID)
    at = (torch.arange(14) + 0.5) * 27 / 14 - 0.5
    torch.testing.assert_close(pooled, at[:, None].expand(14, 14), atol=1e-4, rtol=0)


def test_resize_is_the_host_models() -> None:
    picture = texture(np.random.default_rng(5), 120, 200)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(picture).permute(2, 0, 1)[None], size=(SIDE, SIDE), mode="bicubic", antialias=True
    )
    assert torch.equal(resize(torch.from_numpy(picture)[None]), expected)


def test_batches_do_not_change_the_result_and_runs_repeat() -> None:
    frames = np.stack([texture(np.random.default_rng(seed), 48, 64) for seed in range(5)])
    whole = ENCODER.encode(frames)
    assert whole.shape == (5, 729, ENCODER.width)
    assert torch.equal(whole, ENCODER.encode(frames))
    torch.testing.assert_close(whole, SpectralEncoder(batch=2).encode(frames), atol=1e-6, rtol=0)


def test_saliency_finds_the_odd_token_and_frame_feature_the_odd_frame() -> None:
    rng = np.random.default_rng(6)
    frames = np.repeat(texture(rng)[None] // 8 + 112, 6, axis=0)
    frames[3, 100:180, 200:280] = rng.integers(0, 255, (80, 80, 3))
    tokens = ENCODER.pool(ENCODER.encode(frames))
    saliency = ENCODER.saliency(tokens)
    row, col = divmod(int(saliency[3].argmax()), TOKEN_GRID[1])
    assert 100 <= (row + 0.5) * SIDE / 14 < 180
    assert 200 <= (col + 0.5) * SIDE / 14 < 280
    feature = ENCODER.frame_features(tokens)
    steps = cosine(feature[1:], feature[:-1])
    assert set(steps.argsort()[:2].tolist()) == {2, 3}
    assert torch.allclose(steps[[0, 1, 4]], torch.ones(3), atol=1e-6)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_refuses_what_is_not_frames(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ShapeError, match="frames have shape"):
        ENCODER.encode(frames)


def test_refuses_wrong_grids_and_gains() -> None:
    with pytest.raises(ShapeError, match="729"):
        ENCODER.pool(torch.zeros(1, 728, 4))
    with pytest.raises(ShapeError, match="196"):
        ENCODER.frame_features(torch.zeros(1, 729, 4))
    with pytest.raises(ConfigError, match="contrast"):
        SpectralEncoder(contrast=0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_agrees_with_cpu() -> None:
    frames = np.stack([texture(np.random.default_rng(seed), 120, 160) for seed in range(3)])
    here, there = ENCODER.encode(frames), ENCODER.encode(frames, device="cuda")
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, atol=1e-4, rtol=0)
