"""Unified STTC against a candidate-by-candidate computation, for every way to fill its gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from compress.baselines import UnifiedSTTC
from compress.baselines.unified_sttc import BLOCK, select_dissimilar
from compress.errors import ConfigError
from tests.compress.baselines.scenes import signals_for, video
from tests.oracle import clustering as oracle
from tests.oracle.metom import cosine


@pytest.mark.parametrize("exhausted", ["contribution", "clusters"])
@pytest.mark.parametrize("recycle", ["unselected", "rejected"])
@pytest.mark.parametrize("retention", [0.06, 0.3, 0.7])
def test_the_pool_and_its_refill_equal_the_definition(retention: float, recycle: Any, exhausted: Any) -> None:
    for frames, k in ((1, 7), (4, 3)):
        tokens = video(frames, (4, 5), seed=frames, width=12)
        signals = signals_for(tokens, grid=(4, 5))
        assert signals.saliency is not None
        method = UnifiedSTTC(retention=retention, recycle=recycle, exhausted=exhausted, k=k)
        result = method.before_llm(tokens, signals)
        answer = oracle.unified_sttc(
            tokens.double().numpy(),
            signals.saliency.double().numpy(),
            result.nominal,
            neighbours=k,
            rejected_only=recycle == "rejected",
            fill=exhausted == "contribution",
        )
        assert result.plan.keep.tolist() == sorted(answer)
        merged = result.apply(tokens.double()).numpy()
        np.testing.assert_allclose(merged, np.array([answer[i] for i in sorted(answer)]), atol=1e-5)


def test_distances_may_be_plain() -> None:
    tokens = video(5, (4, 5), seed=3, width=12)
    signals = signals_for(tokens)
    assert signals.saliency is not None
    plain, scaled = (
        UnifiedSTTC(distance=one, retention=0.3).before_llm(tokens, signals) for one in ("plain", "scaled")
    )
    x = tokens.double().numpy() * 12**0.5  # the square root of the width, which distances are divided by
    answer = oracle.unified_sttc(x, signals.saliency.double().numpy(), 30)
    assert plain.plan.keep.tolist() == sorted(answer)
    assert plain.plan.keep.tolist() != scaled.plan.keep.tolist()


def test_blocks_give_what_one_candidate_after_the_other_gives() -> None:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(BLOCK + 90, 5, generator=generator)
    order = torch.randperm(len(tokens), generator=generator)
    for tau, count in ((0.5, 40), (0.9, BLOCK + 5), (0.95, 30)):
        taken, looked = select_dissimilar(tokens, order, tau=tau, count=count)
        pool: list[int] = []
        seen = 0
        for i in order.tolist():
            if len(pool) == count:
                break
            seen += 1
            if all(cosine(tokens[i].double().numpy(), tokens[j].double().numpy()) < tau for j in pool):
                pool.append(i)
        assert sorted(pool) == taken.nonzero().squeeze(1).tolist()
        assert sorted(order[:seen].tolist()) == looked.nonzero().squeeze(1).tolist()


def test_gaps_are_named_switches() -> None:
    for name in ("recycle", "exhausted", "distance"):
        with pytest.raises(ConfigError, match=f"{name} is 'x'; choose from"):
            UnifiedSTTC(**{name: "x"})
