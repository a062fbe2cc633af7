"""What the methods promise about memory and about waiting for a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compress.infomerge import InfoMerge
from compress.infomerge import evidence as evidence_module
from compress.infomerge import infomerge as infomerge_module
from compress.metom import BTM
from compress.ops import matching
from compress.stage import Signals


class LargestResult(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_no_similarity_matrix_is_held() -> None:
    frames, count = 40, 200
    tokens = torch.randn(frames, count, 4, generator=torch.Generator().manual_seed(0))
    signals = Signals(density=np.random.default_rng(0).random((frames, count)))
    with LargestResult() as largest:
        BTM(retention=0.9, tau_tem=0.99).before_llm(tokens, signals)
    core = int(0.9 * frames * count)
    assert core**2 > 4 * matching.TILE
    assert largest.elements <= matching.TILE


def test_infomerge_waits_for_a_device_without_recordings_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fetch goes through `on_host`; no other operation reads a value of the device."""
    fetches = 0
    fetch = infomerge_module.on_host

    def counted(*tensors: torch.Tensor) -> list[np.ndarray]:
        nonlocal fetches
        fetches += 1
        return fetch(*tensors)

    class NoReads(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "_local_scalar_dense" in str(function) or "nonzero" in str(function):
                reads.append(str(function))
            return function(*args, **(kwargs or {}))

    reads: list[str] = []
    tokens = torch.randn(20, 16, 80, generator=torch.Generator().manual_seed(0))
    method = InfoMerge(retention=0.3)
    expected = method.before_llm(tokens, Signals()).plan
    for module in (evidence_module, infomerge_module):
        monkeypatch.setattr(module, "on_host", counted)
    # Plans on an accelerator check their structure only; here the check of values would read them.
    monkeypatch.setattr(type(expected), "check", lambda self: None)
    with NoReads():
        plan = method.before_llm(tokens, Signals()).plan
    assert fetches == 3
    assert reads == []
    assert torch.equal(plan.keep, expected.keep)
    with NoReads():
        tokens.sum().item()
    assert len(reads) == 1
