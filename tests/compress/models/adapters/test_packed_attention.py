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
    Reuse,
    attend_by_segment,
    attend_fused,
    attend_packed,
    attend_padded,
    attend_reused,
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


def varlen(
    q: Tensor, k: Tensor, v: Tensor, begin: Tensor, of_keys: Tensor, longest: int, of_key: int, *, scale: float
) -> Tensor:
    """Compute what PyTorch's kernel for packed sequences computes."""
    for bounds, most in ((begin, longest), (of_keys, of_key)):
        assert bounds.dtype == torch.int32 and most == int(bounds.diff().max())
    cuts = (bounds[1:-1].tolist() for bounds in (begin, of_keys, of_keys))
    parts = list(zip(*(torch.tensor_split(one, cut) for one, cut in zip((q, k, v), cuts, strict=True)), strict=True))
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


def test_every_way_of_reuse_equals_a_loop_over_tokens() -> None:
    """The second segment computes nothing, the third one of its three tokens."""
    query, key, value = draw()
    frames = [[0, 1, 2, 3], [0, 1, 2], [0, 4, 2], [5, 6, 7, 8, 9, 10, 11]]
    packed, whole = pack([4, 0, 1, 7]), pack([len(frame) for frame in frames])
    origin = torch.tensor([token for frame in frames for token in frame])
    own = torch.tensor([0, 1, 2, 3, 8, *range(10, 17)])
    reuse = Reuse(packed=packed, whole=whole, origin=origin, own=own)
    loop = torch.empty(1, 12, *query.shape[1:2], query.shape[3])
    for token in range(12):
        frame = next(frame for frame in (frames[0], *frames[2:]) if token in frame)
        q, k, v = query[:, :, token : token + 1], key[:, :, frame], value[:, :, frame]
        loop[:, token] = kernel(torch.nn.Identity(), q, k, v, None, SCALING)[0][:, 0]
    found = attend_reused(kernel, torch.nn.Identity(), query, key, value, reuse, scaling=SCALING)
    torch.testing.assert_close(found, loop)
    k, v = reuse.spread(key), reuse.spread(value)
    torch.testing.assert_close(attend_padded(query, k, v, packed, keys=whole, scaling=SCALING), loop)
    torch.testing.assert_close(attend_fused(varlen, query, k, v, packed, keys=whole, scaling=SCALING), loop)
    own_only = attend_padded(query, key, value, packed, scaling=SCALING)
    assert (own_only - loop).abs().max() > 0.1


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
