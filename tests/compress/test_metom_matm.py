"""MATM against averages taken one token at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compress.compressor import Pipeline
from compress.errors import ConfigError, ShapeError
from compress.metom import BTM, MATM, MeToM
from tests.oracle import metom as oracle


@pytest.mark.parametrize("average", ["mean", "sequential"])
@pytest.mark.parametrize("percent", [10.0, 50.0, 80.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_the_oracle(percent: float, average: str, dtype: torch.dtype) -> None:
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        hidden = torch.randn(37, 8, generator=generator).to(dtype)
        scores = torch.rand(3, 37, generator=generator)
        result = MATM(merge_percent=percent, average=average).inside_llm(scores, hidden)
        keep, values, gap = oracle.matm(scores.double().numpy(), hidden.double().numpy(), percent, average)
        assert gap > 1e-7
        assert result.plan.keep.tolist() == keep.tolist()
        np.testing.assert_allclose(result.apply(hidden.double()).numpy(), values, rtol=1e-5, atol=1e-5)


def test_the_two_averages_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, scores = torch.randn(20, 4, generator=generator), torch.rand(20, generator=generator)
    plans = [MATM(merge_percent=80, average=a).inside_llm(scores, hidden).plan for a in ("mean", "sequential")]
    assert torch.equal(plans[0].assign, plans[1].assign)
    assert not torch.allclose(plans[0].weight, plans[1].weight)


def test_ties_keep_the_first() -> None:
    result = MATM(layers=(2,)).inside_llm(torch.ones(1, 7), torch.randn(7, 3))
    assert result.plan.keep.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("count", "percent"), [(0, 50.0), (1, 100.0), (9, 0.0)])
def test_nothing_to_merge_is_the_identity(count: int, percent: float) -> None:
    hidden = torch.randn(count, 3)
    result = MATM(merge_percent=percent).inside_llm(torch.rand(3, count), hidden)
    assert torch.equal(result.apply(hidden), hidden)


def test_at_least_one_token_stays() -> None:
    assert MATM(merge_percent=100).inside_llm(torch.rand(3, 9), torch.randn(9, 4)).achieved == 1


def test_merge_layer_follows_the_last_scored_one() -> None:
    assert MATM(layers=(13, 14, 15)).merge_layer == 16
    assert MATM(layers=(3,)).merge_layer == 4


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="scores have shape"):
        MATM(layers=(1, 2, 3)).inside_llm(torch.rand(2, 9), torch.randn(9, 4))
    with pytest.raises(ShapeError, match="scores have shape"):
        MATM().inside_llm(torch.rand(2, 8), torch.randn(9, 4))
    with pytest.raises(ShapeError, match="hidden has shape"):
        MATM().inside_llm(torch.rand(3, 9), torch.randn(1, 9, 4))
    hidden = torch.randn(9, 4)
    hidden[3, 1] = torch.inf
    with pytest.raises(ShapeError, match=r"visual tokens \[3\] hold NaN"):
        MATM().inside_llm(torch.rand(3, 9), hidden)
    scores = torch.rand(3, 9)
    scores[1, 5] = torch.nan
    with pytest.raises(ShapeError, match=r"scores of visual tokens \[5\]"):
        MATM().inside_llm(scores, torch.randn(9, 4))


@pytest.mark.parametrize(
    "options",
    [{"layers": ()}, {"layers": (3, 3)}, {"layers": (-1,)}, {"merge_percent": 101}, {"average": "x"}, {"query": "x"}],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MATM(**options)


@pytest.mark.parametrize(
    ("depth", "layers"), [(28, (13, 14, 15)), (24, (11, 12, 13)), (80, (39, 40, 41)), (6, (2, 3, 4)), (2, (0,))]
)
def test_layers_around_the_middle(depth: int, layers: tuple[int, ...]) -> None:
    for method in (MATM(), MeToM(), Pipeline(BTM(), MATM())):
        assert method.layers is None and method.merge_layer is None
        fitted = method.at_depth(depth)
        assert fitted.layers == layers and fitted.merge_layer == layers[-1] + 1 < depth
    assert MATM(layers=(1,)).at_depth(depth).layers == (1,)


def test_layers_of_a_decoder_that_is_too_shallow() -> None:
    for depth, first in ((1, 1), (3, 3)):
        with pytest.raises(ConfigError, match=f"{depth} decoder layers and allows merging from layer {first} on"):
            MATM().at_depth(depth, first=first)


def test_scores_of_any_layers_while_none_are_named() -> None:
    hidden, scores = torch.randn(8, 4), torch.rand(3, 8)
    assert torch.equal(
        MATM().inside_llm(scores, hidden).plan.keep, MATM(layers=(0, 1, 2)).inside_llm(scores, hidden).plan.keep
    )
