"""Steps of training on whole clips: what is learnt from a batch, which families are asked, how much is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.accuracy.corpus import KINDS_ASKED
from bench.accuracy.packed_decoder import Reading, read_packed
from bench.accuracy.train_decoder import EOS
from bench.accuracy.train_tower import ids_of
from bench.accuracy.whole_clips import DENSE, LOOKED_UP, UNKNOWN, Batch, WholeClips, choose_frames
from compress.accuracy.questions import CHANCE, FAMILIES, NUMBERS
from compress.accuracy.scene import DIRECTIONS, SAMPLED, SHAPES, TEXTURES

DEPTH: Final = {"time": 2, "centre": 2, "peers": 3, "opening": 3, "entry": 4, "way": 4, "copies": 4, "earlier": 4}
"""Layers behind which a target is read off the visual tokens."""
ASKED_DEPTH: Final = {"came": 4, "sooner": 5}
"""Layers behind which a target is read off the words of a question."""
WEIGHT: Final = {"centre": 2.0, "peers": 2.0, "copies": 0.5}
"""Weight of a target's loss where it is not 1."""
DEPTHS: Final = tuple(sorted({*DEPTH.values(), *ASKED_DEPTH.values()}))
NAMED: Final = {"way": DIRECTIONS, "copies": NUMBERS, "opening": TEXTURES}
"""Targets whose first classes are words: a token that knows one points to the word, as the tower's tokens do to what
they show, so that an answer is copied from it as a colour is."""
INTRODUCED: Final = (("colour", "scene", "digit", "place", "event", "presence", "whereabouts"),
                     ("motion", "count", "order"))  # fmt: skip
"""Families in the order in which they are taken up."""
LEARNT: Final = 0.3
"""Loss in nats below which the next families are taken up."""
SOLVED: Final = 0.08
"""Loss below which a family is only rehearsed."""
QUESTIONS: Final = 12
DECAY: Final = 0.1
"""Weight decay of the matrices; with some thousand clips they learn clips by heart without it."""


class DenseHeads(nn.Module):
    """What a visual token knows, read off by linear maps and by the words that name it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        classes = {**DENSE, "earlier": len(SHAPES)}
        unnamed = {name: classes[name] - len(NAMED.get(name, ())) for name in DEPTH}
        unnamed |= LOOKED_UP
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in unnamed.items() if count})

    def forward(self, reading: Reading, words: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the mean loss of every target that the batch has; words are the decoder's vectors (V, d)."""
        losses = {}
        for name, depth in (*DEPTH.items(), *ASKED_DEPTH.items()):
            x = reading.asked[depth] if name in LOOKED_UP else reading.visual[depth]
            x = F.rms_norm(x, (x.shape[-1],))
            parts = [x @ words[ids_of(NAMED[name])].to(x.dtype).T] if name in NAMED else []
            parts += [self.heads[name](x)] if name in self.heads else []
            logits = torch.cat(parts, dim=-1).float()
            if name == "earlier":
                known = batch.earlier >= 0
                bits = F.binary_cross_entropy_with_logits(logits, batch.earlier.clamp(min=0).float(), reduction="none")
                losses[name] = (bits * known).sum() / known.sum().clamp(min=1)
            else:
                target = (batch.looked_up if name in LOOKED_UP else batch.dense)[name].flatten()
                mean = F.cross_entropy(logits.flatten(0, -2), target, ignore_index=UNKNOWN, reduction="sum")
                losses[name] = mean / (target != UNKNOWN).sum().clamp(min=1)
        return losses


class Progress:
    """Losses of the families and targets, and which families are asked."""

    def __init__(self, groups: Sequence[Sequence[str]], known: dict[str, float]) -> None:
        self.groups = groups
        self.loss = dict(known)
        self.seen = dict.fromkeys(known, 100)
        self.stage = 0
        self.advance()

    @property
    def active(self) -> list[str]:
        """Families that are asked."""
        return [name for group in self.groups[: self.stage + 1] for name in group]

    def observe(self, name: str, loss: float) -> None:
        """Follow a loss by its running mean, over some 50 steps once there are so many."""
        self.seen[name] = self.seen.get(name, 0) + 1
        known = self.loss.get(name, loss)
        self.loss[name] = known + max(0.02, 1 / self.seen[name]) * (loss - known)

    @property
    def learnt(self) -> bool:
        """Whether every family of every group is."""
        return self.stage + 1 == len(self.groups) and all(self.loss.get(one, 9.0) < LEARNT for one in self.active)

    def advance(self) -> bool:
        """Take up the next families once those that are asked are learnt."""
        moved = False
        while self.stage + 1 < len(self.groups) and all(self.loss.get(one, 9.0) < LEARNT for one in self.active):
            self.stage += 1
            moved = True
        return moved

    def begin_again(self) -> None:
        """Take nothing for learnt: clips have more frames from now on."""
        self.loss = {name: max(value, LEARNT) for name, value in self.loss.items()}

    def weight(self) -> NDArray[np.float64]:
        """Of every family of `KINDS_ASKED`: 1 while it is learnt, less when it is only rehearsed, 0 before."""
        weight = np.zeros(len(KINDS_ASKED))
        for name in self.active:
            weight[KINDS_ASKED.index(name)] = 0.3 if self.loss.get(name, 9.0) < SOLVED else 1.0
        return weight


def answer_losses(reading: Reading, batch: Batch) -> Tensor:
    """float32 (B, Q): cross-entropy of the answer, and a little of the end after it."""
    answer = batch.words.gather(2, (batch.length - 1).clamp(min=0)[..., None])[..., 0]
    logits = reading.answers
    losses = F.cross_entropy(logits[:, :, 0].flatten(0, 1), answer.flatten(), reduction="none")
    ends = F.cross_entropy(logits[:, :, 1].flatten(0, 1), torch.full_like(answer, EOS).flatten(), reduction="none")
    return (losses + 0.02 * ends).view_as(answer)


@torch.no_grad()
def judge(model: Any, heads: DenseHeads, clips: WholeClips, count: int, frames: int) -> dict[str, float]:
    """Accuracy of every family among its options, and the losses of the tokens' targets, on whole prefixes.

    Args:
        model: the whole model.
        heads: that read its tokens.
        clips: to ask about.
        count: of them, the first ones.
        frames: of each.
    """
    rng = np.random.default_rng(0)
    weight = np.array([float(name in FAMILIES) for name in KINDS_ASKED])
    right, asked = np.zeros(len(KINDS_ASKED)), np.zeros(len(KINDS_ASKED))
    known: dict[str, list[float]] = {}
    for start in range(0, count, 8):
        rows = range(start, min(start + 8, count))
        chosen = [choose_frames(rng, frames) for _ in rows]
        batch = clips.draw(rows, chosen, 24, weight, rng, apart=SAMPLED + 1)
        with torch.autocast("cpu", torch.bfloat16):
            reading = read_packed(model, batch.tokens, batch.words, batch.length, depths=DEPTHS)
            for name, loss in heads(reading, model.model.language_model.embed_tokens.weight, batch).items():
                known.setdefault(f"dense-{name}", []).append(float(loss))
        logits = reading.answers[:, :, 0]
        offered = logits.gather(2, batch.options.clamp(min=0)).masked_fill(batch.options < 0, -torch.inf)
        said = batch.options.gather(2, offered.argmax(-1, keepdim=True))[..., 0]
        answer = batch.words.gather(2, (batch.length - 1).clamp(min=0)[..., None])[..., 0]
        there = batch.family >= 0
        np.add.at(right, batch.family[there].numpy(), (said == answer)[there].numpy())
        np.add.at(asked, batch.family[there].numpy(), 1)
    found = {name: round(float(right[n] / asked[n]), 4) for n, name in enumerate(KINDS_ASKED) if asked[n]}
    found["macro"] = round(float(np.mean([found.get(name, CHANCE[name]) for name in FAMILIES])), 4)
    return found | {name: round(float(np.mean(losses)), 3) for name, losses in known.items()}


class Pupil:
    """A model that learns from whole clips.

    Args:
        model: the whole model; its tower stays as it is.
        heads: what reads the visual tokens in training.
        clips: that it learns from.
        progress: of the families.
        rng: what chooses clips, frames and questions.
        dense: weight of the heads' losses.
    """

    def __init__(
        self, model: Any, heads: DenseHeads, clips: WholeClips, progress: Progress, rng: np.random.Generator, *,
        dense: float,
    ) -> None:  # fmt: skip
        self.model, self.heads, self.clips, self.progress = model, heads, clips, progress
        self.rng, self.dense = rng, dense
        lm = model.model.language_model
        matrices = [one for one in lm.layers.parameters() if one.ndim == 2]
        taken = {id(one) for one in matrices}
        rest = [one for one in lm.parameters() if id(one) not in taken]
        rest += [model.model.image_newline, *heads.parameters()]
        self.trained = [*matrices, *rest]
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0),
        ]

    def step(self, frames: int, clips: int, rate: float) -> None:
        """Learn from some clips of so many frames."""
        weight = self.progress.weight()
        rows = self.rng.integers(len(self.clips), size=clips).tolist()
        chosen = [choose_frames(self.rng, frames) for _ in rows]
        backwards = (self.rng.random(clips) < 0.5).tolist()
        batch = self.clips.draw(rows, chosen, QUESTIONS, weight, self.rng, apart=1, backwards=backwards)
        with torch.autocast("cpu", torch.bfloat16):
            reading = read_packed(self.model, batch.tokens, batch.words, batch.length, depths=DEPTHS)
            dense = self.heads(reading, self.model.model.language_model.embed_tokens.weight, batch)
        losses = answer_losses(reading, batch)
        share = torch.from_numpy(weight)[batch.family.clamp(min=0)].float() * (batch.family >= 0)
        loss = (losses * share).sum() / share.sum().clamp(min=1e-6) + self.dense * sum(
            WEIGHT.get(name, 1.0) * one for name, one in dense.items()
        )
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        for optimiser in self._optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
        for number, name in enumerate(KINDS_ASKED):
            mine = batch.family == number
            if mine.any():
                self.progress.observe(name, float(losses.detach()[mine].mean()))
        for name, value in dense.items():
            self.progress.observe(f"dense-{name}", float(value.detach()))
