"""Greedy picks: the loop against brute force, the kernel in Triton's interpreter against the loop, and their choice."""

from __future__ import annotations

import os
import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.ops import greedy
from compress.ops.greedy import pick_greedily
from compress.ops.pairwise import Pairwise

COMBINES = ("sum", "least")
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed: its kernels were NOT run"
)


def pairs_of(matrix: Tensor) -> Pairwise:
    return Pairwise(lambda rows, start: matrix[rows, start:].clone(), len(matrix), matrix.device)


def draw_matrix(size: int, seed: int, *, levels: int | None = None) -> Tensor:
    """Symmetric values in [-1, 0], with many ties where there are few levels."""
    matrix = torch.rand(size, size, generator=torch.Generator().manual_seed(seed))
    matrix = -torch.minimum(matrix, matrix.T)
    return matrix if levels is None else (matrix * levels).round() / levels


def brute_force(matrix: np.ndarray, count: int, combine: str, repeat: bool) -> list[int]:
    nearest = [min(row[j] for j in range(len(matrix)) if j != i) for i, row in enumerate(matrix)]
    picked = [int(np.argmax(nearest))]
    while len(picked) < count:
        scores = []
        for token in range(len(matrix)):
            values = [float(matrix[one, token]) for one in picked]
            score = sum(values) if combine == "sum" else min(values)
            scores.append(-np.inf if token in picked and not repeat else score)
        picked.append(int(np.argmax(scores)))
    return picked


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 14), st.integers(0, 2**31), st.sampled_from(COMBINES), st.booleans(), st.data())
def test_the_loop_is_the_definition(size: int, seed: int, combine: Any, repeat: bool, data: st.DataObject) -> None:
    matrix = draw_matrix(size, seed, levels=data.draw(st.sampled_from((4, None))))
    count = data.draw(st.integers(1, size))
    found = pick_greedily(pairs_of(matrix), count, combine=combine, repeat=repeat)
    assert found.tolist() == brute_force(matrix.numpy(), count, combine, repeat)


@needs_triton
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled, for the CUDA device here")
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(0, 2**31), st.sampled_from(COMBINES), st.booleans(), st.data())
def test_the_kernel_picks_as_the_loop(size: int, seed: int, combine: Any, repeat: bool, data: st.DataObject) -> None:
    from compress.ops.greedy_kernel import pick

    matrix = draw_matrix(size, seed, levels=data.draw(st.sampled_from((4, None))))
    count = data.draw(st.integers(1, size))
    pairs = pairs_of(matrix)
    values = matrix.double().log1p().clamp_min(-9).float() if combine == "sum" else matrix
    expected = greedy._pick_in_loop(lambda one: values[one][0], pairs.nearest, count, combine, repeat)
    found = pick(values, pairs.nearest, count, combine=combine, repeat=repeat)
    assert found.tolist() == expected.tolist()


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Kernels of the CPU, none of which has been tried."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(greedy, "KERNELS", found)
    monkeypatch.setattr(greedy, "_checked", set())
    monkeypatch.setattr(greedy, "_refused", set())
    return found


def test_each_form_of_a_kernel_is_compared_once(kernels: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    loop, loops, launches = greedy._pick_in_loop, [], []

    def counted(*arguments: Any) -> Tensor:
        loops.append(1)
        return loop(*arguments)

    def kernel(values: Tensor, nearest: Tensor, count: int, combine: Any, repeat: bool) -> Tensor:
        launches.append(combine)
        return loop(lambda one: values[one][0], nearest, count, combine, repeat)

    matrix = draw_matrix(30, 0)
    expected = pick_greedily(pairs_of(matrix), 9, combine="sum", change=torch.exp)
    kernels["cpu"] = kernel
    monkeypatch.setattr(greedy, "_pick_in_loop", counted)
    for _ in range(3):
        assert torch.equal(pick_greedily(pairs_of(matrix), 9, combine="sum", change=torch.exp), expected)
    assert launches == ["sum"] * 3 and len(loops) == 1
    pick_greedily(pairs_of(matrix), 9, combine="least")
    assert launches[3:] == ["least"] and len(loops) == 2
    for size, forms in ((17, 2), (32, 2), (33, 3), (64, 3)):
        pick_greedily(pairs_of(draw_matrix(size, 0)), 9, combine="least")
        assert len(loops) == forms, "a form is compiled for sizes up to a power of two"
    pick_greedily(pairs_of(matrix), 9, combine="least", repeat=True)
    assert len(loops) == 4
    launches.clear()
    monkeypatch.setattr(greedy, "LARGEST", 29)  # more tokens than a kernel holds
    pick_greedily(pairs_of(matrix), 9, combine="least")
    assert launches == []


@pytest.mark.parametrize("broken", ["fails", "differs"])
def test_a_kernel_that_fails_is_replaced_and_warned_of_once(kernels: dict[str, Any], broken: str) -> None:
    matrix = draw_matrix(30, 1)
    expected = pick_greedily(pairs_of(matrix), 9, combine="least")

    def kernel(*_: Any) -> Tensor:
        if broken == "fails":
            raise ValueError("no such instruction")
        return expected.flip(0)

    kernels["cpu"] = kernel
    with pytest.warns(RuntimeWarning, match="no such instruction" if broken == "fails" else "differs from the loop"):
        assert torch.equal(pick_greedily(pairs_of(matrix), 9, combine="least"), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pick_greedily(pairs_of(matrix), 9, combine="least"), expected)


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the kernel was run in the interpreter only")
@pytest.mark.parametrize("combine", COMBINES)
def test_the_kernel_on_a_gpu(combine: Any) -> None:
    matrix = draw_matrix(700, 2).cuda()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pick_greedily(pairs_of(matrix), 200, combine=combine)
    assert torch.equal(found.cpu(), pick_greedily(pairs_of(matrix.cpu()), 200, combine=combine))
