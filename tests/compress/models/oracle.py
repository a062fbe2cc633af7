"""What a compressed model must say, computed another way: no hooks, no cache, no generate, dense matrices.

The embeddings that reach the decoder are recorded from the plain model. Plans are applied to them as dense matrices in
float64, the decoder's layers are called one by one on the whole sequence with an explicit mask, again for every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from compress.plan import MergePlan


def record_prompt(model: Any, inputs: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments that reach the decoder of the plain model for a prompt."""
    seen: dict[str, Any] = {}

    def see(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.update(kwargs)

    handle = model.model.language_model.register_forward_pre_hook(see, with_kwargs=True)
    try:
        model.generate(**inputs, max_new_tokens=1, do_sample=False)
    finally:
        handle.remove()
    return seen


def token_layout(model: Any, ids: Tensor) -> tuple[list[int], list[int]]:
    """Places of the visual tokens of one row and, for each, of the newline that goes with it (-1 for none)."""
    places = [place for place, one in enumerate(ids.tolist()) if one == model.config.video_token_id]
    kind = type(model).__name__
    if kind == "LlavaOnevisionForConditionalGeneration":
        return places[:-1], [-1] * (len(places) - 1)
    if kind == "LlavaVideoForConditionalGeneration":
        vision = model.config.vision_config
        cols = vision.image_size // vision.patch_size // 2
        tokens = [place for number, place in enumerate(places) if number % (cols + 1) != cols]
        ends = [places[number // cols * (cols + 1) + cols] for number in range(len(tokens))]
        return tokens, ends
    return places, [-1] * len(places)


@dataclass(kw_only=True)
class Oracle:
    """One compressed prompt.

    Attributes:
        model: the plain model.
        ids: int64 (S,), the prompt.
        prompt: see `record_prompt`.
        plan: over the visual tokens, before the decoder.
        contiguous: positions are renumbered.
        inner: over what is left of them, before layer ``merge_layer``.
        merge_layer: see inner.
        positions_shift: negative control: added to the positions of visual tokens.
    """

    model: Any
    ids: Tensor
    prompt: dict[str, Any]
    plan: MergePlan
    contiguous: bool = False
    inner: MergePlan | None = None
    merge_layer: int = 0
    positions_shift: int = 0
    deepstack: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        text = self.prompt["inputs_embeds"][0]
        positions = self.prompt["position_ids"].reshape(-1, len(self.ids))[-3:]
        visual, newlines = token_layout(self.model, self.ids)
        chosen = [visual[one] for one in self.plan.keep.tolist()]
        newlines_kept = {newlines[one] for one in self.plan.keep.tolist()}
        gone = (set(visual) - set(chosen)) | (set(newlines) - newlines_kept)
        kept = [place for place in range(len(self.ids)) if place not in gone]
        self.visual = [kept.index(place) for place in chosen]
        self.embeddings = text[kept].clone()
        self.embeddings[self.visual] = self._merge(self.plan, text[visual])
        self.positions = positions[:, : len(kept)] if self.contiguous else positions[:, kept]
        planes = self.prompt.get("deepstack_visual_embeds") or []
        self.deepstack = [self._merge(self.plan, plane) for plane in planes]

    @staticmethod
    def _merge(plan: MergePlan, tokens: Tensor) -> Tensor:
        return (plan.dense().double() @ tokens.double()).float()

    @torch.no_grad()
    def logits(self, tail: list[int] | None = None) -> Tensor:
        """Logits (1 + len(tail), vocabulary) after the prompt and after each further id."""
        tail = tail or []
        decoder = self.model.model.language_model
        hidden = self.embeddings
        positions = self.positions
        if self.positions_shift:
            positions = positions.clone()
            positions[:, self.visual] += self.positions_shift
        if tail:
            hidden = torch.cat((hidden, decoder.embed_tokens(torch.tensor(tail))))
            first = int(self.positions.max()) + 1
            positions = torch.cat((positions, torch.arange(first, first + len(tail)).expand(len(positions), -1)), dim=1)
        axes = positions[0][None] if len(positions) == 1 else positions[:, None]
        cos, sin = decoder.rotary_emb(hidden[None], axes)
        for number, layer in enumerate(decoder.layers):
            if number == self.merge_layer and self.inner is not None:
                chosen = [self.visual[one] for one in self.inner.keep.tolist()]
                kept = [place for place in range(len(hidden)) if place not in set(self.visual) - set(chosen)]
                merged = self._merge(self.inner, hidden[self.visual])
                hidden = hidden.clone()
                hidden[chosen] = merged
                hidden, cos, sin = hidden[kept], cos[:, kept], sin[:, kept]
            mask = torch.full((len(hidden), len(hidden)), -math.inf).triu(1)[None, None]
            output = layer(hidden[None], attention_mask=mask, position_embeddings=(cos, sin), position_ids=None)
            hidden = (output if isinstance(output, Tensor) else output[0])[0]
            if number < len(self.deepstack):
                hidden = hidden.clone()
                hidden[self.visual] += self.deepstack[number]
        return self.model.lm_head(decoder.norm(hidden[-1 - len(tail) :]))
