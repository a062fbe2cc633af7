"""Recorded functions: the same results with one launch, and the ordinary run wherever recording fails."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.ops import graphs
from compress.ops.graphs import CudaRecorder, fetch
from tests.oracle.accelerator import DEVICE, Accelerator


def statistics(values: Tensor, weights: Tensor, *, power: int) -> tuple[Tensor, ...]:
    return (values.float() ** power).sum(dim=1), (values > 0).sum(), values @ weights, weights > 0


def draw(seed: int, rows: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator).bfloat16(), torch.randn(4, 3, generator=generator).bfloat16()


def test_replays_give_what_the_function_gives() -> None:
    with Accelerator(graphs=True) as accelerator:
        for turn in range(6):
            for rows in (5, 7):
                for power in (1, 2):
                    values, weights = draw(10 * turn + rows, rows)
                    there = values.to(DEVICE), weights.to(DEVICE)
                    accelerator.reset()
                    found = fetch(statistics, there, power=power)
                    for one, expected in zip(found, statistics(values, weights, power=power), strict=True):
                        assert one.dtype == np.float64
                        np.testing.assert_array_equal(one, expected.double().numpy())
        assert accelerator.launches == {"copy_": 2, "graph": 1}
        assert accelerator.waits.total() == 1
        assert accelerator.recorded > 5


def test_the_host_needs_no_recording() -> None:
    values, weights = draw(0)
    with Accelerator(graphs=True) as accelerator:
        for _ in range(4):
            found = fetch(statistics, (values, weights), power=2)
    assert accelerator.launches.total() == 0
    np.testing.assert_array_equal(found[0], (values.float() ** 2).sum(dim=1).double().numpy())


def test_a_function_that_waits_runs_as_always_and_is_warned_of_once() -> None:
    def waiting(values: Tensor) -> tuple[Tensor, ...]:
        return (values * float(values.sum()),)

    with Accelerator(graphs=True) as accelerator:
        there = torch.ones(3).to(DEVICE)
        fetch(waiting, (there,))
        with pytest.warns(RuntimeWarning, match="waiting cannot be recorded: .*waits"):
            assert fetch(waiting, (there,))[0].tolist() == [3, 3, 3]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert fetch(waiting, (2 * there,))[0].tolist() == [12, 12, 12]
        assert "graph" not in accelerator.launches


@pytest.mark.parametrize("stale", [2, 3])
def test_a_replay_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch, stale: int) -> None:
    """A recording that misses what changed between calls, of the tensors that were recorded or of others."""
    with Accelerator(graphs=True):
        recorder = graphs.RECORDERS[DEVICE.type]
        record = recorder.record
        replays = 1

        def record_badly(function, tensors):
            replay = record(function, tensors)

            def replay_badly(tensors):
                nonlocal replays
                replays += 1
                return replay(tensors if replays < stale else [torch.zeros_like(one) for one in tensors])

            return replay_badly

        monkeypatch.setattr(recorder, "record", record_badly)
        found = []
        with pytest.warns(RuntimeWarning, match="statistics differs when it is replayed") as warned:
            for turn in range(6):
                values, weights = draw(turn)
                found.append(fetch(statistics, (values.to(DEVICE), weights.to(DEVICE)), power=1))
        assert len(warned) == 1
        for turn, (sums, *_) in enumerate(found):
            np.testing.assert_array_equal(sums, draw(turn)[0].float().sum(dim=1).double().numpy())


def test_few_shapes_are_remembered() -> None:
    with Accelerator(graphs=True):
        for rows in range(1, 12):
            values, weights = draw(rows, rows)
            fetch(statistics, (values.to(DEVICE), weights.to(DEVICE)), power=1)
        assert len(graphs._shapes) == graphs.SHAPES
        graphs.release_graphs()
        assert not graphs._shapes


def test_other_strides_are_another_shape() -> None:
    """A library may choose another kernel for them, which rounds otherwise."""
    values, weights = draw(0, 4)
    with Accelerator(graphs=True):
        for _ in range(4):
            for matrix in (values, values.T.contiguous().T):
                found = fetch(statistics, (matrix.to(DEVICE), weights.to(DEVICE)), power=1)
                np.testing.assert_array_equal(found[0], values.float().sum(dim=1).double().numpy())
        assert len(graphs._shapes) == 2


def test_recording_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(graphs.SWITCH, "0")
    assert CudaRecorder().stream(torch.device("cuda", 0)) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: graphs are not recorded here")
def test_cuda_graphs_give_what_the_function_gives() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for turn in range(5):
            there = [one.cuda() for one in draw(turn)]
            found = fetch(statistics, there, power=2)
            for one, expected in zip(found, statistics(*there, power=2), strict=True):
                np.testing.assert_array_equal(one, expected.double().cpu().numpy())
    assert any(shape.replay for shape in graphs._shapes.values())
