"""Tensor primitives: density peaks, saliency, directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.errors import ShapeError
from compress.ops import saliency as saliency_module
from compress.ops.density_peaks import log_peak_scores
from compress.ops.saliency import PoolingHead, attend_and_score, attention_received, distance_to_frame_mean
from compress.ops.similarity import check_finite, unit
from compress.ops.transfer import on_host
from tests.oracle import infomerge as oracle


def order(scores: Tensor) -> list[int]:
    return np.argsort(-scores.double().numpy(), kind="stable").tolist()


def test_golden_density_peaks() -> None:
    points = torch.tensor([0.0, 1, 2, 10, 11])[None, :, None]
    scores = log_peak_scores(points, torch.ones(1, 5, dtype=torch.bool), neighbours=2)[0]
    # Equal densities of exp(-1/2): what is left is ln of the separations 11, 1, 1, 8, 1.
    torch.testing.assert_close((scores + 0.5).exp(), torch.tensor([11.0, 1, 1, 8, 1]), rtol=1e-5, atol=1e-5)
    assert order(scores.round(decimals=4)) == [0, 3, 1, 2, 4]


@pytest.mark.parametrize("neighbours", [1, 3, 4])
def test_density_peaks_equal_the_oracle(neighbours: int) -> None:
    generator = torch.Generator().manual_seed(neighbours)
    tokens = torch.randn(3, 14, 6, generator=generator) + 10
    candidate = torch.rand(3, 14, generator=generator) > 0.2
    scores = log_peak_scores(tokens, candidate, neighbours=neighbours)
    for frame in range(3):
        places = candidate[frame].nonzero().squeeze(1).tolist()
        peaks = oracle.peaks(tokens[frame].double().numpy(), places, neighbours)
        expected = [peaks[p][0] + math.log(peaks[p][1]) for p in places]
        np.testing.assert_allclose(scores[frame, places].numpy(), expected, rtol=1e-4, atol=1e-4)
        assert torch.isneginf(scores[frame][~candidate[frame]]).all()


def test_far_tokens_do_not_underflow() -> None:
    tokens = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0)) * 100
    scores = log_peak_scores(tokens, torch.ones(1, 9, dtype=torch.bool), neighbours=4)[0]
    peaks = oracle.peaks(tokens[0].double().numpy(), list(range(9)), 4)
    assert order(scores) == sorted(range(9), key=lambda p: -(peaks[p][0] + math.log(peaks[p][1])))
    # The broken rule: densities outside the logarithm are all zero.
    assert all(np.exp(np.float32(value[0])) == 0 for value in peaks.values())


def test_duplicates_are_no_peaks() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 6, 500, generator=generator).repeat(1, 3, 1) * 3 + 7
    scores = log_peak_scores(tokens, torch.ones(1, 18, dtype=torch.bool), neighbours=2)[0]
    assert torch.isneginf(scores[6:]).all()
    assert torch.isfinite(scores[:6]).all()
    same = torch.full((1, 9, 300), 0.3)
    assert torch.isneginf(log_peak_scores(same, torch.ones(1, 9, dtype=torch.bool), neighbours=4)).all()


def siglip_weights(width: int, heads: int) -> tuple[dict[str, Tensor], nn.MultiheadAttention]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / math.sqrt(shape[-1])

    attention = nn.MultiheadAttention(width, heads, batch_first=True)
    weights = {
        "post_layernorm.weight": draw(width) + 1,
        "post_layernorm.bias": draw(width),
        "head.probe": draw(1, 1, width) * 9,
        "head.attention.in_proj_weight": draw(3 * width, width) * 3,
        "head.attention.in_proj_bias": draw(3 * width),
        "head.attention.out_proj.weight": draw(width, width),
        "head.attention.out_proj.bias": draw(width),
        "head.layernorm.weight": draw(width) + 1,
        "head.layernorm.bias": draw(width),
        "head.mlp.fc1.weight": draw(2 * width, width),
        "head.mlp.fc1.bias": draw(2 * width),
        "head.mlp.fc2.weight": draw(width, 2 * width),
        "head.mlp.fc2.bias": draw(width),
    }
    with torch.no_grad():
        attention.in_proj_weight.copy_(weights["head.attention.in_proj_weight"])
        attention.in_proj_bias.copy_(weights["head.attention.in_proj_bias"])
        attention.out_proj.weight.copy_(weights["head.attention.out_proj.weight"])
        attention.out_proj.bias.copy_(weights["head.attention.out_proj.bias"])
    return weights, attention


def test_folded_head_equals_multi_head_attention() -> None:
    width, heads = 24, 4
    weights, attention = siglip_weights(width, heads)
    features = torch.randn(3, 17, width, generator=torch.Generator().manual_seed(1))
    normed = nn.functional.layer_norm(
        features, (width,), weights["post_layernorm.weight"], weights["post_layernorm.bias"], 1e-6
    )
    with torch.no_grad():
        pooled, map_ = attention(weights["head.probe"].expand(3, -1, -1), normed, normed)
    hidden = nn.functional.layer_norm(
        pooled, (width,), weights["head.layernorm.weight"], weights["head.layernorm.bias"], 1e-6
    )
    hidden = nn.functional.linear(hidden, weights["head.mlp.fc1.weight"], weights["head.mlp.fc1.bias"])
    hidden = nn.functional.gelu(hidden, approximate="tanh")
    mlp = nn.functional.linear(hidden, weights["head.mlp.fc2.weight"], weights["head.mlp.fc2.bias"])

    saliency, pooled_features = PoolingHead.fold(weights, heads=heads)(features)
    torch.testing.assert_close(saliency, map_.squeeze(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(pooled_features, (pooled + mlp).squeeze(1), rtol=1e-4, atol=1e-5)
    other_probe = weights | {"head.probe": weights["head.probe"].flip(2)}
    assert not torch.allclose(PoolingHead.fold(other_probe, heads=heads)(features)[0], saliency, rtol=1e-2)

    with pytest.raises(ShapeError, match=r"lacks head\.probe"):
        PoolingHead.fold({name: w for name, w in weights.items() if name != "head.probe"})
    with pytest.raises(ShapeError, match="16 heads; the width must be a multiple"):
        PoolingHead.fold(weights)


def test_attention_received() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 3, 7, 4, generator=generator), torch.randn(2, 3, 7, 4, generator=generator)
    expected = np.zeros((2, 7))
    for t in range(2):
        for h in range(3):
            for i in range(7):
                logits = key[t, h].double().numpy() @ query[t, h, i].double().numpy() / 2
                expected[t] += np.exp(logits) / np.exp(logits).sum() / 21
    np.testing.assert_allclose(attention_received(query, key).numpy(), expected, rtol=1e-5)
    with pytest.raises(ShapeError, match="both must be"):
        attention_received(query, key[:, :, :5])
    real = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    padded = attention_received(query, key, real=real)
    torch.testing.assert_close(padded[0], torch.from_numpy(expected[0]).float())
    alone = attention_received(query[1:, :, :5], key[1:, :, :5])
    torch.testing.assert_close(padded[1], torch.cat((alone[0], torch.zeros(2))))
    assert (attention_received(query, key)[1, :5] - alone[0]).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_and_its_scores_from_one_pass(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against float64, where single keys draw almost all attention; logits reach 60. In parts of 40 queries."""
    monkeypatch.setattr(saliency_module, "CACHED", 40 * 90)
    generator = torch.Generator().manual_seed(0)
    frames, heads, count, width = 3, 2, 90, 24
    packed = torch.randn(3, frames, count, heads, width, generator=generator).to(dtype).transpose(2, 3)
    query, key, value = packed[0] * 4, packed[1], packed[2]
    wide = (query.double() * 0.3 @ key.double().mT).softmax(dim=3)
    attended, received = attend_and_score(query, key, value, scaling=0.3)
    assert attended.shape == (frames, count, heads, width) and attended.dtype == dtype
    exact = (wide @ value.double()).transpose(1, 2)
    torch.testing.assert_close(attended.double(), exact, rtol=0, atol=5e-6 if dtype == torch.float32 else 2e-2)
    expected = wide.mean(dim=(1, 2))
    np.testing.assert_allclose(received.numpy(), expected.numpy(), rtol=2e-5)
    swapped = (key.double() @ query.double().mT * 0.3).softmax(dim=3).mean(dim=(1, 2))  # what queries receive of keys
    assert (received - swapped).abs().max() > 0.1 * expected.max()


def test_distance_to_frame_mean() -> None:
    tokens = torch.tensor([[[0.0, 0.0], [2.0, 2.0]]])
    assert distance_to_frame_mean(tokens).tolist() == [[1, 1]]


def test_unit_rows() -> None:
    rows = unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-20, 0.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0, 0], [0, 0]]))
    half = unit(torch.tensor([30000.0, 40000.0], dtype=torch.float16))  # the norm overflows float16
    assert half.tolist() == pytest.approx([0.6, 0.8])


def test_non_finite_tokens_are_found() -> None:
    tokens = torch.zeros(4, 2, 3)
    check_finite(tokens)
    tokens[2, 1, 0] = -torch.inf
    tokens[2, 1, 1] = torch.inf
    with pytest.raises(ShapeError, match=r"\[2\]"):
        check_finite(tokens)


def test_on_host_keeps_shapes_and_values() -> None:
    first, second = on_host(torch.arange(6).reshape(2, 3), torch.tensor([0.5]))
    assert first.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert second.tolist() == [0.5]
    assert first.dtype == np.float64


def test_many_tokens_are_compared_in_tiles() -> None:
    tokens = torch.randn(1, 1100, 3, generator=torch.Generator().manual_seed(5))
    everyone = torch.ones(1, 1100, dtype=torch.bool)
    scores = log_peak_scores(tokens, everyone, neighbours=5)
    distance = torch.cdist(tokens[0].double(), tokens[0].double()) / 3**0.5
    density = -distance.topk(5, largest=False).values.square().mean(dim=1)
    denser = density[None] > density[:, None]
    separation = torch.where(denser, distance, torch.inf).amin(dim=1)
    separation[density.argmax()] = distance[density.argmax()].max()
    torch.testing.assert_close(scores[0].double(), density + separation.log(), rtol=1e-4, atol=1e-4)
