"""Attention within consecutive segments of one packed sequence: the merged patches of a frame see each other only.

On an accelerator PyTorch's flash kernel takes such sequences as they are, from version 2.10 in half precision.
Elsewhere segments are padded to a batch, whose mask keeps attention off that kernel. A CPU takes one segment
after the other.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.adapters.attention import Kernel
from compress.ops.saliency import attention_received
from compress.ops.transfer import moved

_varlen_attn: Callable[..., Any] | None
try:
    from torch.nn.attention.varlen import varlen_attn as _varlen_attn
except ImportError:
    _varlen_attn = None

FLASH_WIDTH = 256
"""Largest head that the flash kernel takes; widths are multiples of 8."""

FLASH_CAPABILITY = (8, 0)
"""Least compute capability that has it."""

ALIGNMENT = 8
"""Masks whose rows are no multiple of it are copied by every layer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packing:
    """The segments of a packed sequence, and what every layer needs of them, made once.

    Attributes:
        lengths: tokens of each segment, at least 1.
        device: where the sequence is.
    """

    lengths: Sequence[int]
    device: torch.device

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest segment."""
        return max(self.lengths)

    @cached_property
    def bounds(self) -> Tensor:
        """int32 (segments + 1,), where segments begin."""
        return moved(F.pad(torch.tensor(self.lengths).cumsum(0), (1, 0)).to(torch.int32), self.device)

    @cached_property
    def _real(self) -> Tensor:
        """bool (segments, L) on the host, False for padding; L is a multiple of `ALIGNMENT`."""
        length = torch.tensor(self.lengths)
        return torch.arange(-(-self.longest // ALIGNMENT) * ALIGNMENT) < length[:, None]

    @cached_property
    def real(self) -> Tensor:
        """The same on the device."""
        return moved(self._real, self.device)

    @cached_property
    def source(self) -> Tensor:
        """int64 (segments * L,), place in the sequence of what stands in the batch, 0 for padding."""
        length = torch.tensor(self.lengths)
        place = (length.cumsum(0) - length)[:, None] + torch.arange(self._real.shape[1])
        return moved(torch.where(self._real, place, 0).flatten(), self.device)

    @cached_property
    def back(self) -> Tensor:
        """int64 (sum of lengths,), place in the flat batch of each token."""
        return moved(self._real.flatten().nonzero().squeeze(1), self.device)

    @cached_property
    def mask(self) -> Tensor:
        """float32 (segments, 1, 1, L), what is added to the logits of each key."""
        mask = torch.zeros(self._real.shape).masked_fill_(~self._real, -torch.inf)
        return moved(mask[:, None, None], self.device)

    def pad(self, packed: Tensor) -> Tensor:
        """Pad (1, heads, sum of lengths, d) -> (segments, heads, L, d)."""
        batch = packed[0].transpose(0, 1).index_select(0, self.source)
        return batch.view(len(self.lengths), -1, *batch.shape[1:]).transpose(1, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reuse:
    """Segments that see more than the packed sequence holds of them: what each lacks stands in another.

    Attributes:
        packed: the segments of the packed sequence, of the tokens that are computed; they may be empty.
        whole: the same segments with all of their tokens, at least 1.
        origin: int64 (whole,), place in the packed sequence that each token of all segments has its key and value from.
        own: int64 (packed,), where each token that is computed stands among all.
    """

    packed: Packing
    whole: Packing
    origin: Tensor
    own: Tensor

    def spread(self, packed: Tensor, part: slice = slice(None)) -> Tensor:
        """Give every token of the segments, or of part of them, its value: (1, heads, S, d) -> (1, heads, n, d)."""
        # Rows of a token lie together before heads come first, as the projection leaves them.
        return packed[0].transpose(0, 1).index_select(0, self.origin[part]).transpose(0, 1)[None]

    def received(self, query: Tensor, key: Tensor) -> Tensor:
        """Measure the attention that each computed token receives in its segment, float32 (S,).

        Tokens that are not computed ask as the ones that they are reused from, as they would if they were.

        Args:
            query: (1, heads, S, d), packed.
            key: likewise.
        """
        whole = self.whole
        found = attention_received(whole.pad(self.spread(query)), whole.pad(self.spread(key)), real=whole.real)
        return found.flatten().index_select(0, whole.back.index_select(0, self.own))


def attend_reused(
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    reuse: Reuse,
    *,
    scaling: float,
    **options: Any,
) -> Tensor:
    """Attend from the tokens that are computed to all of their segment, by the path that suits the device.

    Args:
        kernel: the configured attention function.
        module: the attention module.
        query: (1, heads, S, d), packed; likewise key and value.
        key: see query.
        value: see query.
        reuse: the segments.
        scaling: factor of the logits.
        options: further ones of the kernel.

    Returns:
        (1, S, heads, d).
    """
    packed, whole = reuse.packed, reuse.whole
    if query.device.type == "cpu":
        attended, start = [], 0
        for queries, length in zip(torch.split(query, list(packed.lengths), dim=2), whole.lengths, strict=True):
            if queries.shape[2]:
                seen = (reuse.spread(one, slice(start, start + length)) for one in (key, value))
                attended.append(kernel(module, queries, *seen, None, scaling=scaling, **options)[0])
            start += length
        return torch.cat(attended, dim=1)
    k, v = reuse.spread(key), reuse.spread(value)
    if _varlen_attn is not None and _flash_takes(query, scaling, _varlen_attn):
        return attend_fused(_varlen_attn, query, k, v, packed, keys=whole, scaling=scaling)
    return attend_padded(query, k, v, packed, keys=whole, scaling=scaling)


def attend_packed(
    kernel: Kernel,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    *,
    scaling: float,
    **options: Any,
) -> Tensor:
    """Attend within segments, by the path that suits the device.

    Args:
        kernel: the configured attention function.
        module: the attention module.
        query: (1, heads, sum of lengths, d); likewise key and value.
        key: see query.
        value: see query.
        packing: the segments.
        scaling: factor of the logits.
        options: further ones of the kernel.

    Returns:
        (1, sum of lengths, heads, d).
    """
    if query.device.type == "cpu":
        return attend_by_segment(kernel, module, query, key, value, packing, scaling=scaling, **options)
    if _varlen_attn is not None and _flash_takes(query, scaling, _varlen_attn):
        return attend_fused(_varlen_attn, query, key, value, packing, scaling=scaling)
    return attend_padded(query, key, value, packing, scaling=scaling)


def attend_by_segment(
    kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, packing: Packing, **options: Any
) -> Tensor:
    """Compute `attend_packed` with one call of the configured kernel per segment."""
    segments = zip(*(torch.split(one, list(packing.lengths), dim=2) for one in (query, key, value)), strict=True)
    return torch.cat([kernel(module, q, k, v, None, **options)[0] for q, k, v in segments], dim=1)


def attend_fused(
    varlen_attn: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    *,
    keys: Packing | None = None,
    scaling: float,
) -> Tensor:
    """Compute `attend_packed` in one kernel, without padding, mask or copies; ``keys`` if not as many as queries."""
    keys = keys or packing
    q, k, v = (one.squeeze(0).transpose(0, 1) for one in (query, key, value))
    scale = {"scale": scaling} if _takes_scale(varlen_attn) else {}
    attended: Tensor = varlen_attn(q, k, v, packing.bounds, keys.bounds, packing.longest, keys.longest, **scale)
    return attended.unsqueeze(0)


def attend_padded(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing, *, keys: Packing | None = None, scaling: float
) -> Tensor:
    """Compute `attend_packed` on a batch that is padded to the longest segment; ``keys`` as in `attend_fused`."""
    keys = keys or packing
    k, v = (keys.pad(one) for one in (key, value))
    mask = keys.mask.to(k.dtype)
    attended = F.scaled_dot_product_attention(packing.pad(query), k, v, attn_mask=mask, scale=scaling)
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, packing.back)[None]


def _flash_takes(query: Tensor, scaling: float, varlen_attn: Callable[..., Any]) -> bool:
    """Return whether PyTorch's flash kernel for packed sequences works on such heads."""
    width = query.shape[3]
    return (
        query.device.type == "cuda"
        and torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()  # some builds lack it
        and query.dtype in (torch.float16, torch.bfloat16)
        and width % 8 == 0
        and width <= FLASH_WIDTH
        and torch.cuda.get_device_capability(query.device) >= FLASH_CAPABILITY
        and (_takes_scale(varlen_attn) or math.isclose(scaling, 1 / math.sqrt(width)))
    )


@cache
def _takes_scale(varlen_attn: Callable[..., Any]) -> bool:
    """Return whether the kernel takes a factor of the logits: PyTorch 2.10 fixes it at one over the root of d."""
    return "scale" in inspect.signature(varlen_attn).parameters
