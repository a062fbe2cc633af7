"""Segments of a packed sequence, each attending to itself, by every way that a device may take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("transformers")

from compress.models.adapters import packed_attention
from compress.models.adapters.packed_attention import (
    Packing,
    attend_by_segment,
    attend_fused,
    attend_packed,
    attend_padded,
)

LENGTHS = [5, 1, 6]
SCALING = 0.3


def draw(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [4 * torch.randn(1, 2, sum(LENGTHS), 8, generator=generator).to(dtype) for _ in range(3)]


def pack(lengths: list[int]) -> Packing:
    return Packing(lengths=lengths, device=torch.device("cpu"))


def kernel(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float) -> tuple[Tensor, None]:
    return ((q @ k.mT * scaling).softmax(-1) @ v).transpose(1, 2), None


def varlen(q: Tensor, k: Tensor, v: Tensor, begin: Tensor, _: Tensor, longest: int, __: int, *, scale: float) -> Tensor:
    """Compute what PyTorch's kernel for packed sequences computes."""
    assert begin.dtype == torch.int32 and longest == int(begin.diff().max())
    parts = list(zip(*(torch.tensor_split(one, begin[1:-1].tolist()) for one in (q, k, v)), strict=True))
    weights = [(torch.einsum("qhd,khd->hqk", a, b) * scale).softmax(-1) for a, b, _ in parts]
    return torch.cat([torch.einsum("hqk,khd->qhd", w, c) for w, (_, _, c) in zip(weights, parts, strict=True)])


def test_every_way_equals_a_loop() -> None:
    heads = draw()
    loop = attend_by_segment(kernel, torch.nn.Identity(), *heads, pack(LENGTHS), scaling=SCALING)
    torch.testing.assert_close(attend_padded(*heads, pack(LENGTHS), scaling=SCALING), loop)
    torch.testing.assert_close(attend_fused(varlen, *heads, pack(LENGTHS), scaling=SCALING), loop)
    for wrong in (
        attend_padded(*heads, pack([6, 1, 5]), scaling=SCALING),
        attend_fused(varlen, *heads, pack([6, 1, 5]), scaling=SCALING),
        attend_fused(varlen, *heads, pack(LENGTHS), scaling=0.5),
    ):
        assert (wrong - loop).abs().max() > 0.1


def test_layers_share_what_padding_needs() -> None:
    names: list[str] = []

    class Counter(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function._schema.name)
            return function(*args, **(kwargs or {}))

    heads, packing = draw(), pack(LENGTHS)
    assert packing.mask.shape[-1] == 8
    attend_padded(*heads, packing, scaling=SCALING)
    with Counter():
        attend_padded(*heads, packing, scaling=SCALING)
    assert sum(name == "aten::index_select" for name in names) == 4
    assert not {"aten::arange", "aten::nonzero", "aten::masked_fill", "aten::where"} & set(names)


def test_the_installed_kernel_for_packed_sequences_takes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """On pretended tensors of an accelerator: names, order and types of arguments, not arithmetic."""
    pytest.importorskip("torch.nn.attention.varlen", reason="PyTorch 2.10 or newer")
    from torch._subclasses.fake_tensor import FakeTensorMode

    taken: list[str] = []
    capability, built = (9, 0), True

    def fused(*tensors: Any, **options: Any) -> Tensor:
        taken.append("fused")
        return attend_fused(*tensors, **options)

    def padded(query: Tensor, *_: Any, **__: Any) -> Tensor:
        taken.append("padded")
        return query.transpose(1, 2)

    monkeypatch.setattr(packed_attention, "attend_fused", fused)
    monkeypatch.setattr(packed_attention, "attend_padded", padded)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: built)
    device = torch.device("cuda")

    def attend(dtype: torch.dtype, width: int) -> str:
        with FakeTensorMode(allow_non_fake_inputs=True):
            heads = [torch.empty(1, 2, sum(LENGTHS), width, dtype=dtype, device=device) for _ in range(3)]
            # Bounds stay on the host: without an accelerator nothing can be copied to a pretended one.
            found = attend_packed(kernel, torch.nn.Identity(), *heads, pack(LENGTHS), scaling=width**-0.5)
        assert found.shape == (1, sum(LENGTHS), 2, width) and found.dtype == dtype
        return taken.pop()

    assert attend(torch.bfloat16, 72) == "fused"
    assert attend(torch.float16, 72) == "fused"
    assert attend(torch.float32, 72) == "padded"
    assert attend(torch.bfloat16, 36) == "padded"
    capability = (7, 5)
    assert attend(torch.bfloat16, 72) == "padded"
    capability, built = (9, 0), False
    assert attend(torch.bfloat16, 72) == "padded"
