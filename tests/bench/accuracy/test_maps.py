"""The study of density maps chooses by its rule, and wears a candidate where the stages read it."""

from __future__ import annotations

import numpy as np
import pytest

from bench.accuracy.maps import REFERENCE, choose, spread_evenly, wear
from tests.codecmeta.record.test_meta import record


def draws(**gains: float) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Accuracies of maps, each so much above the reference, and as sure."""
    luck = np.random.default_rng(0).normal(0, 0.05, 500)
    base = 0.8 + luck
    noise = np.random.default_rng(1).normal(0, 0.01, 500)
    rows = {REFERENCE: {"mean": base}}
    return {"btm": rows | {name.replace("_", "-"): {"mean": base + gain + noise} for name, gain in gains.items()}}


def test_the_reference_stays_unless_a_map_is_surely_better() -> None:
    assert choose(draws(bits=0.005, innovation=-0.2), "btm") == REFERENCE
    assert choose(draws(bits=0.05, innovation=-0.2), "btm") == "bits"
    assert choose(draws(bits=0.05, texture_coded=0.08), "btm") == "texture-coded"
    assert choose(draws(carried=0.3), "btm") == REFERENCE, "a default record has no such map"


def test_a_variant_takes_the_place_of_the_innovation() -> None:
    meta = record()
    for name in ("texture-innovation, floor 0.1", "mean of texture and innovation", "packets only"):
        worn = wear(meta, name)
        density = worn.density((3, 5), map="innovation")
        assert not np.allclose(density, meta.density((3, 5), map="innovation"))
        assert np.array_equal(worn.density((3, 5), map="texture"), meta.density((3, 5), map="texture"))
    floored = wear(meta, "texture-innovation, floor 0.1").energy_innovation
    texture = meta.density((9, 13), map="texture")
    assert floored is not None and (floored >= 0.0999 * texture).all() and (floored <= texture * 1.001).all()
    with pytest.raises(KeyError):
        wear(meta, "detail")


def test_ranks_that_scatter() -> None:
    ranks = spread_evenly(record(), (6, 7))
    assert ranks.shape == (3, 6, 7) and len(np.unique(ranks[0])) == 42
    assert (ranks[0] == ranks[2]).all()
    top = ranks[0] >= np.sort(ranks[0], axis=None)[-14]
    assert top[:3].sum() in range(5, 10) and top[:, :3].sum() in range(3, 10)
