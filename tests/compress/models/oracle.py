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
        cuts: in place of these, (layer, plan, positions are counted again) of several.
        caches: what leaves at the only cut is not seen by further tokens in the layers before it either.
        positions_shift: negative control: added to the positions of visual tokens.
    """

    model: Any
    ids: Tensor
    prompt: dict[str, Any]
    plan: MergePlan
    contiguous: bool = False
    inner: MergePlan | None = None
    merge_layer: int = 0
    cuts: list[tuple[int, MergePlan, bool]] = field(default_factory=list)
    caches: bool = False
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
        if self.inner is not None:
            self.cuts = [(self.merge_layer, self.inner, False)]
        planes = self.prompt.get("deepstack_visual_embeds") or []
        self.deepstack = [self._merge(self.plan, plane) for plane in planes]

    @staticmethod
    def _merge(plan: MergePlan, tokens: Tensor) -> Tensor:
        return (plan.dense().double() @ tokens.double()).float()

    def logits(self, tail: list[int] | None = None) -> Tensor:
        """Logits (1 + len(tail), vocabulary) after the prompt and after each further id."""
        hidden = self.run(tail or [])[0]
        return self.model.lm_head(self.model.model.language_model.norm(hidden[-1 - len(tail or []) :])).detach()

    @torch.no_grad()
    def run(
        self, tail: list[int], *, until: int | None = None, cut: bool = False
    ) -> tuple[Tensor, list[int], tuple[Tensor, Tensor]]:
        """Return what layer ``until`` is given, after or before the cut there: hidden states, visual places, rotary."""
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
        visual = self.visual
        for number, layer in enumerate(decoder.layers):
            if number == until and not cut:
                break
            for _, plan, renumbered in (cut for cut in self.cuts if cut[0] == number):
                chosen = [visual[one] for one in plan.keep.tolist()]
                kept = [place for place in range(len(hidden)) if place not in set(visual) - set(chosen)]
                merged = self._merge(plan, hidden[visual])
                hidden = hidden.clone()
                hidden[chosen] = merged
                hidden, cos, sin = hidden[kept], cos[:, kept], sin[:, kept]
                visual = [kept.index(place) for place in chosen]
                if renumbered:
                    cos, sin = decoder.rotary_emb(hidden[None], torch.arange(len(hidden))[None])
            if number == until:
                break
            mask = causal(hidden)
            if self.caches and number < self.cuts[0][0]:
                stay = set(self.cuts[0][1].keep.tolist())
                gone = [place for one, place in enumerate(visual) if one not in stay]
                mask[0, 0, len(self.embeddings) :, gone] = -math.inf
            output = layer(hidden[None], attention_mask=mask, position_embeddings=(cos, sin))
            hidden = (output if isinstance(output, Tensor) else output[0])[0]
            if number < len(self.deepstack):
                hidden = hidden.clone()
                hidden[visual] += self.deepstack[number]
        return hidden, visual, (cos, sin)

    @torch.no_grad()
    def weights(self, layer: int, *, cut: bool) -> tuple[Tensor, list[int]]:
        """Attention (heads, S, S) of a layer of a model with eager attention, after or before a cut there.

        Returns:
            The weights, and the places of visual tokens.
        """
        hidden, visual, rotary = self.run([], until=layer, cut=cut)
        module = self.model.model.language_model.layers[layer]
        _, weights = module.self_attn(
            hidden_states=module.input_layernorm(hidden[None]),
            attention_mask=causal(hidden),
            position_embeddings=rotary,
        )
        return weights[0], visual


def causal(hidden: Tensor) -> Tensor:
    """Additive mask of a whole sequence."""
    return torch.full((len(hidden), len(hidden)), -math.inf).triu(1)[None, None]
