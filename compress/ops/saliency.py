"""Saliency of visual tokens: the pooling head of SigLIP, attention received, or distinctness within the frame.

InfoMerge's published figures rest on the first (FastVID's re-attached head). The others replace it where an
encoder has no such head or its weights are not available; the caller names the one used in ``Signals.saliency_source``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compress.errors import ShapeError

TILE = 2**26
"""Attention weights held at a time: 256 MB."""

CACHED = 2**20
"""The same on a CPU, whose cache they stay in: 4 MB."""

SIGLIP_HEADS = 16
"""Attention heads of SigLIP-so400m."""

LAYER_NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolingHead:
    """SigLIP's attention pooling with its constant query folded into the keys: 66 times less work, the same result.

    ``q_h · (W_k y + b_k) = (W_kᵀ q_h) · y + const``, and the constant cancels in the softmax; values are averaged
    before they are projected.

    Attributes:
        query: float32 (heads, D), ``W_kᵀ q_h / sqrt(head size)``.
        weights: the other weights, by their names in `fold`.
    """

    query: Tensor
    weights: Mapping[str, Tensor]

    NAMES = (
        "post_layernorm.weight",
        "post_layernorm.bias",
        "head.probe",
        "head.attention.in_proj_weight",
        "head.attention.in_proj_bias",
        "head.attention.out_proj.weight",
        "head.attention.out_proj.bias",
        "head.layernorm.weight",
        "head.layernorm.bias",
        "head.mlp.fc1.weight",
        "head.mlp.fc1.bias",
        "head.mlp.fc2.weight",
        "head.mlp.fc2.bias",
    )

    @staticmethod
    def fold(weights: Mapping[str, Tensor], *, heads: int = SIGLIP_HEADS) -> PoolingHead:
        """Fold the weights of a SigLIP vision model's ``post_layernorm`` and ``head``.

        Args:
            weights: tensors by the names in `NAMES` (a checkpoint's, less its ``vision_model.`` prefix).
            heads: attention heads.

        Raises:
            ShapeError: a weight is missing, or the width does not divide into the heads.
        """
        missing = [name for name in PoolingHead.NAMES if name not in weights]
        if missing:
            raise ShapeError(
                f"the pooling head lacks {', '.join(missing)}; pass all of them, named without 'vision_model.'"
            )
        wide = {name: weights[name].float() for name in PoolingHead.NAMES}
        probe = wide["head.probe"].reshape(-1)
        width = probe.numel()
        if width % heads:
            raise ShapeError(
                f"the pooling head has width {width} and {heads} heads; the width must be a multiple of the heads"
            )
        to_query, to_key, _ = wide["head.attention.in_proj_weight"].chunk(3)
        query_bias = wide["head.attention.in_proj_bias"][:width]
        query = (to_query @ probe + query_bias).view(heads, 1, -1) / math.sqrt(width // heads)
        folded = (query @ to_key.view(heads, -1, width)).squeeze(1)
        return PoolingHead(query=folded, weights=wide)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return saliency and global feature of every frame.

        Args:
            features: (T, n, D), output of the encoder layer that the host uses, before its final norm.

        Returns:
            Saliency float32 (T, n), the attention of the probe averaged over heads, on the encoder's own grid (pool it
            as the host pools the features); and the pooled feature float32 (T, D).
        """
        w = self.weights
        width = features.shape[2]
        normed = functional.layer_norm(
            features.float(), (width,), w["post_layernorm.weight"], w["post_layernorm.bias"], LAYER_NORM_EPS
        )
        attention = (normed @ self.query.T).softmax(dim=1)
        averaged = attention.mT @ normed
        heads = self.query.shape[0]
        to_value = w["head.attention.in_proj_weight"][2 * width :].view(heads, -1, width)
        value = torch.einsum("thd,hed->the", averaged, to_value).flatten(1)
        value = value + w["head.attention.in_proj_bias"][2 * width :]
        pooled = functional.linear(value, w["head.attention.out_proj.weight"], w["head.attention.out_proj.bias"])
        normed = functional.layer_norm(
            pooled, (width,), w["head.layernorm.weight"], w["head.layernorm.bias"], LAYER_NORM_EPS
        )
        hidden = functional.linear(normed, w["head.mlp.fc1.weight"], w["head.mlp.fc1.bias"])
        hidden = functional.gelu(hidden, approximate="tanh")
        mlp = functional.linear(hidden, w["head.mlp.fc2.weight"], w["head.mlp.fc2.bias"])
        return attention.mean(dim=2), pooled + mlp


def attention_received(query: Tensor, key: Tensor, *, real: Tensor | None = None) -> Tensor:
    """Average the attention that each token receives from the others of its frame.

    Args:
        query: (T, heads, n, d), after any rotary embedding.
        key: (T, heads, n, d).
        real: bool (T, n), False for padding, at least one True per frame; None without any.

    Returns:
        float32 (T, n), averaged over heads and queries; each frame sums to 1, padding receives nothing.

    Raises:
        ShapeError: the two differ in shape.
    """
    if query.shape != key.shape or query.dim() != 4:
        raise ShapeError(f"query is {tuple(query.shape)}, key {tuple(key.shape)}; both must be (T, heads, n, d)")
    frames, heads, count, width = query.shape
    if real is None:
        share, mask = None, None
    else:
        share = (real / (heads * real.sum(dim=1, keepdim=True)))[:, None, None]
        mask = ~real[:, None, None]
    step = max(1, TILE // (heads * count**2))
    parts = []
    for part in (slice(start, start + step) for start in range(0, frames, step)):
        logits = (query[part].float() / math.sqrt(width)) @ key[part].float().mT
        if share is None or mask is None:
            parts.append(logits.softmax(dim=3).mean(dim=(1, 2)))
        else:
            weights = logits.masked_fill_(mask[part], -torch.inf).softmax(dim=3)
            parts.append((share[part] @ weights).sum(dim=(1, 2)))
    return torch.cat(parts)


def attend_and_score(query: Tensor, key: Tensor, value: Tensor, *, scaling: float) -> tuple[Tensor, Tensor]:
    """Compute attention, and from the same weights what `attention_received` returns.

    For CPUs: a fused kernel does not return its weights, and forming them a second time takes six times as long as what
    this adds to the kernel. Part of one head at a time stays in the cache.

    Args:
        query: (T, heads, n, d), after any rotary embedding; no gradients are kept of these.
        key: (T, heads, n, d).
        value: (T, heads, n, d).
        scaling: factor of the logits.

    Returns:
        The output of attention, (T, n, heads, d) in the dtype of the query, accumulated in float32; and the mean
        attention that each token receives, float32 (T, n).
    """
    frames, heads, count, width = query.shape
    attended = query.new_empty(frames, count, heads, width)
    received = torch.zeros(frames, count, dtype=torch.float32, device=query.device)
    rows = min(count, max(1, CACHED // count))
    weights = torch.empty(rows, count, dtype=torch.float32, device=query.device)
    for frame in range(frames):
        for head in range(heads):
            q, k, v = (one[frame, head].float() for one in (query, key, value))
            for start in range(0, count, rows):
                part = slice(start, start + rows)
                tile = weights[: count - start]
                torch.softmax(torch.mm(q[part] * scaling, k.T, out=tile), dim=1, out=tile)
                received[frame] += tile.sum(dim=0)
                attended[frame, part, head] = tile @ v
    return attended, received / (heads * count)


def distance_to_frame_mean(tokens: Tensor) -> Tensor:
    """Return the Euclidean distance over sqrt(D) of each token from the mean of its frame: the last resort.

    Args:
        tokens: (T, N, D), any float dtype.

    Returns:
        float32 (T, N).
    """
    wide = tokens.float()
    distance: Tensor = torch.linalg.vector_norm(wide - wide.mean(dim=1, keepdim=True), dim=2)
    return distance / math.sqrt(tokens.shape[2])
