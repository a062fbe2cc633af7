"""The decoder over a prefix and packed questions, arranged for training on a processor.

The same arithmetic as the model's own forward pass (tested): the prefix attends causally in blocks of rows, which
skips what lies above the diagonal; the questions attend to it and to themselves; of the last layer the prefix needs
keys and values only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.accuracy.corpus import LONGEST
from compress.accuracy.questions import WORDS

BOS: Final = WORDS.index("<bos>")
ROWS: Final = 200
"""Rows of the prefix that attend together."""
HIDDEN: Final = -1e4
"""Score of what must not be seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What the decoder makes of a batch.

    Attributes:
        answers: (B, Q, 2, V), logits after every question and after its answer.
        visual: (B, T * N, d) per depth that was asked for, behind so many layers.
        asked: (B, Q, 13, d), likewise for the questions' tokens.
    """

    answers: Tensor
    visual: dict[int, Tensor]
    asked: dict[int, Tensor]


def read_packed(model: Any, tokens: Tensor, words: Tensor, length: Tensor, *, depths: Sequence[int] = ()) -> Reading:
    """Read whole clips and answer all their questions.

    Args:
        model: the whole model.
        tokens: (B, T * N, d), all visual tokens of a clip; the newline follows them.
        words: int64 (B, Q, 13).
        length: int64 (B, Q).
        depths: numbers of layers behind which the tokens are wanted, fewer than there are.
    """
    lm = model.model.language_model
    batch, visual, _ = tokens.shape
    questions = length.shape[1]
    embed = lm.embed_tokens.weight
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else embed.dtype
    first = embed[BOS].expand(batch, 1, -1)
    newline = model.model.image_newline.expand(batch, 1, -1)
    prefix = torch.cat([first, tokens.to(embed.dtype), newline], dim=1).to(dtype)
    asked = embed[words].flatten(1, 2).to(dtype)
    turn = _turns(lm, torch.arange(visual + 2), dtype)
    turn_asked = _turns(lm, visual + 2 + torch.arange(LONGEST).repeat(questions), dtype)
    causal = torch.full((visual + 2, visual + 2), HIDDEN, dtype=dtype).triu(1)
    group = torch.arange(questions).repeat_interleave(LONGEST)
    own = torch.full((len(group), len(group)), HIDDEN, dtype=dtype)
    own[(group[:, None] == group[None]) & torch.ones_like(own, dtype=torch.bool).tril()] = 0
    seen = torch.cat([torch.zeros(len(group), visual + 2, dtype=dtype), own], dim=1)
    kept, kept_asked = {}, {}
    for number, layer in enumerate(lm.layers):
        q, k, v = _split(layer, prefix, turn)
        asked_q, asked_k, asked_v = _split(layer, asked, turn_asked)
        found = _attend(asked_q, torch.cat([k, asked_k], 1), torch.cat([v, asked_v], 1), seen)
        asked = _finish(layer, asked, found)
        if number + 1 == len(lm.layers):
            break
        parts = []
        for start in range(0, visual + 2, ROWS):
            stop = min(start + ROWS, visual + 2)
            parts.append(_attend(q[:, start:stop], k[:, :stop], v[:, :stop], causal[start:stop, :stop]))
        prefix = _finish(layer, prefix, torch.cat(parts, dim=1))
        if number + 1 in depths:
            kept[number + 1] = prefix[:, 1:-1]
            kept_asked[number + 1] = asked.unflatten(1, (questions, LONGEST))
    tail = _norm(asked, lm.norm).unflatten(1, (questions, LONGEST))
    at = torch.stack([length - 2, length - 1], dim=-1).clamp(min=0)
    picked = tail.gather(2, at[..., None].expand(-1, -1, -1, tail.shape[-1]))
    return Reading(answers=(picked @ embed.to(dtype).T).float(), visual=kept, asked=kept_asked)


def _turns(lm: Any, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angle = positions[:, None].float() * lm.rotary_emb.inv_freq[None]
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def _norm(x: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight.to(x.dtype), norm.variance_epsilon)


def _split(layer: Any, x: Tensor, turn: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Compute queries, keys and values, (B * heads, L, width) each."""
    attention = layer.self_attn
    batch, length, _ = x.shape
    x = _norm(x, layer.input_layernorm)

    def heads(projection: Any, turned: bool) -> Tensor:
        y = projection(x).view(batch, length, -1, attention.head_dim).transpose(1, 2)
        if turned:
            low, high = y.chunk(2, dim=-1)
            y = y * turn[0] + torch.cat([-high, low], dim=-1) * turn[1]
        return y

    groups = attention.num_key_value_groups
    q = heads(attention.q_proj, True) * attention.scaling
    k = heads(attention.k_proj, True).repeat_interleave(groups, dim=1)
    v = heads(attention.v_proj, False).repeat_interleave(groups, dim=1)
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    weight = torch.softmax(torch.bmm(q, k.transpose(1, 2)) + bias, dim=-1, dtype=q.dtype)
    return torch.bmm(weight, v)


def _finish(layer: Any, x: Tensor, found: Tensor) -> Tensor:
    batch, length, _ = x.shape
    found = found.view(batch, -1, length, found.shape[-1]).transpose(1, 2).flatten(2)
    x = x + layer.self_attn.o_proj(found)
    y = _norm(x, layer.post_attention_layernorm)
    mlp = layer.mlp
    return x + mlp.down_proj(F.silu(mlp.gate_proj(y)) * mlp.up_proj(y))
