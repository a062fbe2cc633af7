"""Plans are row-stochastic matrices: apply, assign, compose and broadcast against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress.errors import ShapeError
from compress.plan import MergePlan


def random_plan(count_in: int, count_out: int, seed: int) -> MergePlan:
    rng = np.random.default_rng(seed)
    rows, cols, weights = [], [], []
    for row in range(count_out):
        members = rng.choice(count_in, size=rng.integers(1, 5), replace=False)
        share = rng.random(len(members)) + 0.1
        rows += [row] * len(members)
        cols += members.tolist()
        weights += (share / share.sum()).tolist()
    shuffle = rng.permutation(len(rows))
    return MergePlan.from_entries(
        torch.tensor(rows)[shuffle],
        torch.tensor(cols)[shuffle],
        torch.tensor(weights)[shuffle],
        keep=torch.from_numpy(np.sort(rng.choice(count_in, size=count_out, replace=False))),
        count_in=count_in,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("count_in", "count_out"), [(9, 4), (40, 3), (5, 5)])
def test_apply_is_the_matrix_product(count_in: int, count_out: int, dtype: torch.dtype) -> None:
    plan = random_plan(count_in, count_out, seed=count_in)
    tokens = torch.randn(count_in, 3, 2, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = (plan.dense().double() @ tokens.double().flatten(1)).to(dtype).reshape(count_out, 3, 2)
    merged = plan.apply(tokens)
    assert merged.dtype == dtype
    torch.testing.assert_close(merged, expected, rtol=2e-6 if dtype.itemsize > 2 else 1e-2, atol=1e-6)
    assert not torch.allclose(plan.apply(tokens.flip(0)), merged)


def test_half_precision_accumulates_in_float32() -> None:
    tokens = torch.full((4097, 1), 0.1, dtype=torch.bfloat16)
    tokens[0] = 200.0
    plan = MergePlan.from_groups(np.zeros(4097, np.int64), keep=np.array([0]))
    exact = tokens.double().mean().bfloat16()
    in_bfloat16 = torch.tensor(0.0, dtype=torch.bfloat16)
    for token in tokens[:, 0]:
        in_bfloat16 = in_bfloat16 + token / 4097
    assert plan.apply(tokens).item() == exact.item()
    assert in_bfloat16.item() != exact.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_identity_returns_the_tokens_bit_for_bit(dtype: torch.dtype) -> None:
    tokens = torch.randn(50, 7).to(dtype)
    plan = MergePlan.identity(50)
    assert torch.equal(plan.apply(tokens), tokens)
    assert plan.retention == 1
    assert torch.equal(plan.assign, torch.arange(50))
    assert not torch.equal(MergePlan.selection(torch.arange(49), count_in=50).apply(tokens), tokens)


def test_assign_is_where_a_token_counts_most() -> None:
    for seed in range(20):
        plan = random_plan(12, 6, seed)
        dense = plan.dense().numpy()
        expected = np.where(dense.max(axis=0) > 0, dense.argmax(axis=0), -1)
        np.testing.assert_array_equal(plan.assign.numpy(), expected)
        assert (expected == -1).any() or (expected >= 0).all()


def test_assign_adds_repeated_entries() -> None:
    # Token 1 has 0.4 + 0.4 in the second row, more than any single entry of the first.
    plan = MergePlan.from_entries(
        torch.tensor([0, 0, 1, 1, 1]),
        torch.tensor([0, 1, 1, 1, 2]),
        torch.tensor([0.4, 0.6, 0.4, 0.4, 0.2]),
        keep=torch.tensor([0, 2]),
        count_in=3,
    )
    assert plan.assign.tolist() == [0, 1, 1]


def test_compose_is_the_matrix_product() -> None:
    for seed in range(10):
        first, second = random_plan(30, 12, seed), random_plan(12, 5, seed + 100)
        both = second @ first
        torch.testing.assert_close(both.dense(), second.dense() @ first.dense())
        assert torch.equal(both.keep, first.keep[second.keep])
        assert bool((both.col.diff()[both.row.diff() == 0] > 0).all())
    with pytest.raises(ShapeError, match="outputs 12 tokens, the second takes 30"):
        first @ first


def test_from_groups_averages_and_drops() -> None:
    plan = MergePlan.from_groups(np.array([0, -1, 0, 1]), keep=np.array([0, 3]))
    assert plan.apply(torch.tensor([[1.0], [9.0], [3.0], [5.0]])).squeeze(1).tolist() == [2, 5]
    assert plan.assign.tolist() == [0, -1, 0, 1]
    assert plan.take(torch.tensor([[10, 11, 12, 13]]), dim=1).tolist() == [[10, 13]]


@given(groups=st.lists(st.integers(-1, 5), min_size=1, max_size=40))
def test_from_groups_equals_a_dense_mean(groups: list[int]) -> None:
    kept = [group for group in range(6) if group in groups]
    rank = np.array([kept.index(group) if group >= 0 else -1 for group in groups])
    plan = MergePlan.from_groups(rank, keep=np.arange(len(kept)))
    member = np.array([[group == one for group in groups] for one in kept], np.float64).reshape(-1, len(groups))
    dense = torch.from_numpy((member / member.sum(axis=1, keepdims=True)).astype(np.float32))
    assert torch.equal(plan.dense(), dense)
    again = MergePlan(keep=plan.keep, crow=plan.crow, col=plan.col, weight=plan.weight, count_in=plan.count_in)
    assert torch.equal(again.assign, plan.assign)
    assert torch.equal(plan.dense().flip(1), dense) == torch.equal(dense.flip(1), dense)


def test_weights_may_carry_a_gradient() -> None:
    weight = torch.tensor([0.25, 0.75], requires_grad=True)
    plan = MergePlan(
        keep=torch.tensor([0]), crow=torch.tensor([0, 2]), col=torch.tensor([0, 1]), weight=weight, count_in=2
    )
    plan.apply(torch.tensor([[2.0], [4.0]], requires_grad=True)).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [2, 4]


def test_broadcast_gives_every_member_its_group() -> None:
    plan = MergePlan.from_groups(np.array([0, 1, 0]), keep=np.array([0, 1]))
    assert plan.broadcast(torch.tensor([[7], [8]])).squeeze(1).tolist() == [7, 8, 7]
    with pytest.raises(ShapeError, match="drops 1 of 3"):
        MergePlan.selection(torch.tensor([0, 2]), count_in=3).broadcast(torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": [1, 0]}, "sorted and unique"),
        ({"keep": [0, 3]}, r"keep lies in \[0, 3\]"),
        ({"crow": [0, 2]}, "crow has 2 entries"),
        ({"crow": [0, 0, 3]}, "rise from 0"),
        ({"crow": [0, 2, 4]}, "rise from 0"),
        ({"col": [0, 3, 2]}, "col lies in"),
        ({"col": [1, 0, 2]}, "ascend"),
        ({"col": [0, 1]}, "must agree"),
        ({"weight": [0.5, 0.4, 1.0]}, "sum to 1"),
        ({"weight": [1.5, -0.5, 1.0]}, "at least 0"),
        ({"weight": [float("nan"), 0.5, 1.0]}, "at least 0 and not NaN"),
    ],
)
def test_bad_matrices_are_refused(change: dict[str, list[float]], message: str) -> None:
    good: dict[str, list[float]] = {
        "keep": [0, 2],
        "crow": [0, 2, 3],
        "col": [0, 1, 2],
        "weight": [0.5, 0.5, 1.0],
    }

    def build(parts: dict[str, list[float]]) -> MergePlan:
        arrays = {k: torch.tensor(v, dtype=torch.float32 if k == "weight" else torch.int64) for k, v in parts.items()}
        return MergePlan(**arrays, count_in=3)

    build(good)
    with pytest.raises(ShapeError, match=message):
        build(good | change)


def test_wrong_tokens_are_refused() -> None:
    plan = MergePlan.identity(3)
    with pytest.raises(ShapeError, match="takes 3 tokens"):
        plan.apply(torch.zeros(4, 2))
    with pytest.raises(ShapeError, match="floating point"):
        plan.apply(torch.zeros(3, 2, dtype=torch.int64))
