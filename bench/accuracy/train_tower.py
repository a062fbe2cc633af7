"""Training of the vision tower and the projector on single frames: every token names what its cell shows.

The classes are the decoder's own words: a token is pushed towards the word vectors of the object's kind, its colour or
digit, and the texture behind it. Heads for the object's place are thrown away afterwards.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.accuracy.corpus import Corpus
from compress.accuracy.drawing import KINDS
from compress.accuracy.labels import GRID
from compress.accuracy.questions import WORDS
from compress.accuracy.scene import COLOURS, DIGITS, TEXTURES

CELL: Final = 16
"""Pixels per cell of a frame at the model's size; crowded frames are rolled by whole cells."""


def ids_of(words: tuple[str, ...]) -> list[int]:
    """Ids of words."""
    return [WORDS.index(word) for word in words]


def encode_frames(model: Any, frames: Tensor) -> Tensor:
    """uint8 (n, 3, 112, 112) -> (n, 49, 192): tower, projector and pooling, as the model itself does them."""
    pixels = frames.float() / 255 * 2 - 1
    core = model.model
    hidden = core.vision_tower.embeddings(pixels)
    hidden = core.vision_tower.encoder(inputs_embeds=hidden).last_hidden_state
    tokens = core.multi_modal_projector(hidden)
    n, patches, width = tokens.shape
    side = math.isqrt(patches)
    grid = tokens.transpose(1, 2).reshape(n, width, side, side)
    pooled = F.interpolate(grid, size=(GRID, GRID), mode="bilinear", align_corners=False)
    return pooled.flatten(2).transpose(1, 2)


def normalised(x: Tensor) -> Tensor:
    """Root mean square 1, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class CellHeads(nn.Module):
    """What is read off a token in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = nn.Linear(width, 2)
        self.place = nn.Linear(width, 2 * GRID)

    def forward(self, tokens: Tensor, words: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and what is right: tokens (n, 49, d), word vectors (V, d), targets (n, 49, ...)."""
        x = normalised(tokens)
        words = words.float()
        kind = x @ words[ids_of((*KINDS, "background"))].T
        texture = x @ words[ids_of(TEXTURES)].T
        colour = x @ words[ids_of(COLOURS)].T
        digit = x @ words[ids_of(DIGITS)].T
        kinds = torch.where(target["kind"] < 0, len(KINDS), target["kind"]).long()
        rows = torch.arange(GRID * GRID, device=x.device).expand(len(x), -1)
        place = self.place(x)
        busy = (target["kind"] >= 0)[..., None]
        loss = (
            F.cross_entropy(kind.flatten(0, 1), kinds.flatten())
            + 0.3 * F.cross_entropy(texture.flatten(0, 1), target["texture"].flatten().long())
            + 0.5 * _where_known(colour, target["colour"])
            + 0.5 * _where_known(digit, target["digit"])
            + 0.3 * ((self.offset(x) - target["offset"]).abs() * busy).sum() / busy.sum().clamp(min=1)
            + 0.1 * F.cross_entropy(place[..., :GRID].flatten(0, 1), (rows // GRID).flatten())
            + 0.1 * F.cross_entropy(place[..., GRID:].flatten(0, 1), (rows % GRID).flatten())
        )
        error = ((self.offset(x) - target["offset"]).abs() * busy).sum() / busy.sum().clamp(min=1) / 2
        right = {
            "shape": _share(kind, kinds, (kinds < 8)),
            "plate": _share(kind, kinds, (kinds == 8) | (kinds == 9)),
            "icon": _share(kind, kinds, (kinds >= 10) & (kinds < len(KINDS))),
            "empty": _share(kind, kinds, kinds == len(KINDS)),
            "colour": _share(colour, target["colour"], target["colour"] >= 0),
            "digit": _share(digit, target["digit"], target["digit"] >= 0),
            "texture": _share(texture, target["texture"], target["texture"] >= 0),
            "offset": error,
        }
        return loss, right


def _where_known(logits: Tensor, target: Tensor) -> Tensor:
    known = target >= 0
    losses = F.cross_entropy(logits.flatten(0, 1), target.clamp(min=0).flatten().long(), reduction="none")
    return (losses * known.flatten()).sum() / known.sum().clamp(min=1)


def _share(logits: Tensor, target: Tensor, where: Tensor) -> Tensor:
    return ((logits.argmax(-1) == target) & where).sum() / where.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameBank:
    """Frames with their targets on the training device; one row per frame."""

    frames: Tensor
    target: dict[str, Tensor]

    @classmethod
    def from_corpus(cls, corpus: Corpus, device: torch.device) -> FrameBank:
        """All frames of a corpus."""
        cells = GRID * GRID
        texture = torch.from_numpy(corpus.texture).flatten()
        return cls(
            frames=torch.from_numpy(corpus.frames).flatten(0, 1).to(device),
            target={
                "kind": torch.from_numpy(corpus.kind).reshape(-1, cells).to(device),
                "colour": torch.from_numpy(corpus.colour).reshape(-1, cells).to(device),
                "digit": torch.from_numpy(corpus.digit).reshape(-1, cells).to(device),
                "offset": torch.from_numpy(corpus.offset).reshape(-1, cells, 2).to(device),
                "texture": texture[:, None].expand(-1, cells).to(device),
            },
        )

    def draw(self, count: int, rng: torch.Generator, *, roll: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Random frames; rolled by one random number of whole cells for all of them, if wanted."""
        rows = torch.randint(len(self.frames), (count,), generator=rng).to(self.frames.device)
        frames, target = self.frames[rows], {name: values[rows] for name, values in self.target.items()}
        if not roll:
            return frames, target
        down, right = torch.randint(GRID, (2,), generator=rng).tolist()
        frames = frames.roll((down * CELL, right * CELL), (2, 3))
        for name, values in target.items():
            grid = values.unflatten(1, (GRID, GRID))
            target[name] = grid.roll((down, right), (1, 2)).flatten(1, 2)
        return frames, target


def rate(progress: float, *, warm: float = 0.03) -> float:
    """Share of the highest learning rate: linear up, then a cosine down to 0."""
    if progress < warm:
        return progress / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warm) / (1 - warm))))


def train_tower(
    model: Any,
    crowded: FrameBank,
    clips: FrameBank,
    *,
    steps: int,
    batch: int,
    seed: int,
    learning_rate: float,
    limit: float,
    log: Callable[[dict[str, float]], None],
    keep: Callable[[], None],
) -> None:
    """Train tower, projector and word vectors in place.

    Args:
        model: the whole model, on the training device.
        crowded: crowded frames, half of every batch; three quarters of it in the first half.
        clips: frames of clips.
        steps: of the optimiser.
        batch: frames per step.
        seed: of the sampling.
        learning_rate: the highest.
        limit: seconds that it may take; the learning rate falls accordingly.
        log: called with the state of things every 100 steps.
        keep: called every minute, to write a checkpoint.
    """
    device = next(model.parameters()).device
    rng = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    heads = CellHeads(model.config.text_config.hidden_size).to(device)
    words = model.model.language_model.embed_tokens.weight
    tower = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters(), words]
    trained = [*tower, *heads.parameters()]
    optimiser = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=device.type == "cuda"
    )
    start = saved = time.monotonic()
    for step in range(steps):
        progress = max(step / steps, (time.monotonic() - start) / limit)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate(progress)
        share = 0.75 if progress < 0.5 else 0.5
        first = crowded.draw(round(batch * share), rng, roll=True)
        second = clips.draw(batch - round(batch * share), rng, roll=False)
        frames = torch.cat([first[0], second[0]])
        target = {name: torch.cat([first[1][name], second[1][name]]) for name in first[1]}
        with torch.autocast(device.type, torch.bfloat16):
            tokens = encode_frames(model, frames)
        loss, right = heads(tokens, words, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if step % 100 == 0 or step + 1 == steps:
            log({"step": step, "loss": loss.item(), "seconds": time.monotonic() - start}
                | {name: round(value.item(), 4) for name, value in right.items()})  # fmt: skip
        if time.monotonic() - saved > 60:
            keep()
            saved = time.monotonic()


@torch.no_grad()
def judge_tower(model: Any, heads_free: FrameBank, *, count: int = 2000) -> dict[str, float]:
    """Measure what the words alone read from the tokens of some frames, as shares that are right."""
    device = next(model.parameters()).device
    heads = CellHeads(model.config.text_config.hidden_size).to(device)
    frames = heads_free.frames[:count]
    with torch.autocast(device.type, torch.bfloat16):
        tokens = torch.cat([encode_frames(model, part) for part in frames.split(250)])
    target = {name: values[:count] for name, values in heads_free.target.items()}
    _, right = heads(tokens, model.model.language_model.embed_tokens.weight, target)
    return {name: round(value.item(), 4) for name, value in right.items() if name != "offset"}
