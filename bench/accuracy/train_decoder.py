"""Training of the decoder, its words and the newline on the frozen tower's tokens.

All questions of a clip stand behind one prefix, each sees the prefix and itself, at the positions it would have alone.
Phases may thin the prefix to some of its tokens at their true positions; the last and longest sees all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.accuracy.bank import TokenBank
from bench.accuracy.corpus import KINDS_ASKED, LONGEST
from bench.accuracy.train_tower import rate
from compress.accuracy.questions import FAMILIES, WORDS

BOS: Final = WORDS.index("<bos>")
EOS: Final = WORDS.index("<eos>")

INTRODUCED: Final = (
    ("colour", "scene", "digit", "place", "presence"),
    ("event",),
    ("whereabouts",),
    ("count",),
    ("motion",),
    ("order",),
)
"""Families in the order in which training takes them up."""

LEARNT: Final = 0.3
"""Loss in nats below which the next families are taken up."""
SOLVED: Final = 0.1
"""Loss below which a family is only rehearsed."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training.

    Attributes:
        tokens: of a prefix; as many as there are for all of them.
        batch: clips per step.
        steps: of the optimiser, at most.
        share: of the time, at most.
        questions: per clip.
        favour: how much likelier cells that hold an object are to be among the tokens; 0 chooses at random.
    """

    tokens: int
    batch: int
    steps: int
    share: float
    questions: int = 12
    favour: float = 0.45


def block_mask(prefix: int, questions: int, device: torch.device) -> Tensor:
    """bool (1, 1, L, L): the prefix is causal; a question sees the prefix and what came of itself."""
    length = prefix + questions * LONGEST
    at = torch.arange(length, device=device)
    group = torch.where(at < prefix, -1, (at - prefix) // LONGEST)
    seen = (group[None] == -1) | (group[None] == group[:, None])
    return (seen & (at[None] <= at[:, None]))[None, None]


def read_answers(
    model: Any, tokens: Tensor, places: Tensor, visual: int, words: Tensor, length: Tensor, mask: Tensor
) -> Tensor:
    """Logits after every question and after its answer.

    Args:
        model: the whole model.
        tokens: (B, K, d), the prefix's visual tokens.
        places: int64 (B, K), their numbers among all.
        visual: visual tokens of a full prefix.
        words: int64 (B, Q, 13).
        length: int64 (B, Q).
        mask: of `block_mask`.

    Returns:
        float32 (B, Q, 2, V).
    """
    core = model.model
    embed = core.language_model.embed_tokens.weight
    batch, questions = length.shape
    first = embed[BOS].expand(batch, 1, -1)
    newline = core.image_newline.expand(batch, 1, -1)
    asked = embed[words].flatten(1, 2)
    inputs = torch.cat([first, tokens.to(asked.dtype), newline, asked], dim=1)
    own = visual + 2 + torch.arange(LONGEST, device=words.device).repeat(questions)
    positions = torch.cat(
        [
            torch.zeros_like(places[:, :1]),
            places + 1,
            torch.full_like(places[:, :1], visual + 1),
            own.expand(batch, -1),
        ],
        dim=1,
    )
    hidden = core.language_model(
        inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    tail = hidden[:, tokens.shape[1] + 2 :].unflatten(1, (questions, LONGEST))
    at = torch.stack([length - 2, length - 1], dim=-1).clamp(min=0)
    picked = tail.gather(2, at[..., None].expand(-1, -1, -1, tail.shape[-1]))
    return (picked @ embed.T).float()


class Curriculum:
    """Which families are asked, and how much each weighs.

    Args:
        device: of the training.
        patience: steps after which the next families are taken up in any case.
        learnt: whether the model answers all of them already; each is then only rehearsed until its loss rises.
        groups: families in the order in which they are taken up.
    """

    def __init__(
        self, device: torch.device, *, patience: int, learnt: bool, groups: Sequence[Sequence[str]] = INTRODUCED
    ) -> None:
        self.groups = groups
        self.stage = len(groups) - 1 if learnt else 0
        self.since = 0
        self.patience = patience
        self.loss = torch.full((len(KINDS_ASKED),), 0.9 * SOLVED if learnt else 2.0, device=device)
        self.weight = torch.zeros(len(KINDS_ASKED), device=device)
        self._weigh()

    @property
    def active(self) -> list[str]:
        """Families that are asked."""
        return [name for group in self.groups[: self.stage + 1] for name in group]

    def observe(self, losses: Tensor, family: Tensor) -> None:
        """Follow the loss of every family: losses (n,), families (n,), -1 for none."""
        for number in range(len(KINDS_ASKED)):
            mine = family == number
            mean = (losses * mine).sum() / mine.sum().clamp(min=1)
            self.loss[number] += 0.03 * (mean - self.loss[number]) * (mine.any())

    def advance(self, steps: int) -> None:
        """Take up the next families if the newest are learnt or have had their time."""
        self.since += steps
        if self.stage + 1 < len(self.groups):
            newest = [KINDS_ASKED.index(name) for name in self.groups[self.stage]]
            if bool((self.loss[newest] < LEARNT).all()) or self.since > self.patience:
                self.stage += 1
                self.since = 0
        self._weigh()

    def _weigh(self) -> None:
        known = self.loss.tolist()
        weight = [0.0] * len(KINDS_ASKED)
        for name in self.active:
            number = KINDS_ASKED.index(name)
            weight[number] = 0.4 if known[number] < SOLVED else 1.0
        for name in self.groups[self.stage]:
            number = KINDS_ASKED.index(name)
            weight[number] = max(weight[number], 1.0)
        self.weight.copy_(torch.tensor(weight))


def train_decoder(
    model: Any,
    bank: TokenBank,
    judged: TokenBank,
    phases: Sequence[Phase],
    *,
    seed: int,
    learning_rate: float,
    patience: int,
    learnt: bool = False,
    groups: Sequence[Sequence[str]] = INTRODUCED,
    report: int = 200,
    log: Callable[[dict[str, Any]], None],
    keep: Callable[[], None],
    limit: float,
) -> None:
    """Train the language model, its words and the newline in place.

    Args:
        model: the whole model, on the training device.
        bank: training clips.
        judged: validation clips, asked now and then.
        phases: in order.
        seed: of the sampling.
        learning_rate: the highest; over all phases it rises, stays for a half, and falls.
        patience: see `Curriculum`.
        learnt: likewise.
        groups: likewise.
        report: steps from one line of the log to the next; validation clips are asked every fifth time.
        log: called with the state of things.
        keep: called every minute, to write a checkpoint.
        limit: seconds that it may take.
    """
    device = bank.tokens.device
    rng = torch.Generator(device=device).manual_seed(seed)
    trained = [*model.model.language_model.parameters(), model.model.image_newline]
    optimiser = torch.optim.AdamW(
        trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02, fused=device.type == "cuda"
    )
    curriculum = Curriculum(device, patience=patience, learnt=learnt, groups=groups)
    total = sum(phase.steps for phase in phases)
    step = 0
    start = saved = time.monotonic()
    for number, phase in enumerate(phases):
        ends = time.monotonic() + phase.share * limit
        mask = block_mask(min(phase.tokens, bank.visual) + 2, phase.questions, device)
        for _ in range(phase.steps):
            progress = max(step / total, (time.monotonic() - start) / limit)
            if progress >= 1 or time.monotonic() > ends:
                break
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * (rate(progress, warm=0.02) if progress < 0.02 else
                                               rate(max(0.0, (progress - 0.5) * 2), warm=0.0))  # fmt: skip
            losses, family = _lose(model, bank, phase, curriculum, rng, mask)
            share = curriculum.weight[family.clamp(min=0)] * (family >= 0)
            count = torch.zeros(len(KINDS_ASKED), device=device).index_add_(
                0, family.clamp(min=0), (family >= 0).float()
            )
            share = share / count.clamp(min=1)[family.clamp(min=0)]
            loss = (losses * share).sum() / curriculum.weight.sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            step += 1
            if step % 5 == 0:
                curriculum.observe(losses.detach(), family)
            if step % 50 == 0:
                curriculum.advance(50)
            if step % report == 0:
                known = zip(KINDS_ASKED, curriculum.loss.tolist(), strict=True)
                log({"step": step, "phase": number, "seconds": round(time.monotonic() - start, 1),
                     "active": len(curriculum.active)}
                    | {name: round(value, 3) for name, value in known if name in curriculum.active})  # fmt: skip
            if step % (5 * report) == 0:
                log({"step": step, "accuracy": judge_decoder(model, judged)})
            if time.monotonic() - saved > 60:
                keep()
                saved = time.monotonic()


def _lose(
    model: Any, bank: TokenBank, phase: Phase, curriculum: Curriculum, rng: torch.Generator, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of the questions of a random batch, flat, and their families, -1 where there is none."""
    device = bank.tokens.device
    rows = torch.randint(len(bank.tokens), (phase.batch,), generator=rng, device=device)
    family = bank.family[rows]
    weight = curriculum.weight[family.clamp(min=0)] * (family >= 0)
    draw = torch.rand(family.shape, generator=rng, device=device) * weight
    score, chosen = draw.topk(phase.questions, dim=1)
    words = bank.words[rows].gather(1, chosen[..., None].expand(-1, -1, LONGEST))
    length = bank.length[rows].gather(1, chosen)
    family = family.gather(1, chosen).masked_fill(score <= 0, -1)
    tokens = bank.tokens[rows]
    visual = tokens.shape[1]
    places = torch.arange(visual, device=device).expand(phase.batch, -1)
    if phase.tokens < visual:
        liked = torch.rand(places.shape, generator=rng, device=device) + phase.favour * bank.busy[rows]
        places = liked.topk(phase.tokens, dim=1).indices.sort(dim=1).values
        tokens = tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))
    with torch.autocast(device.type, torch.bfloat16):
        logits = read_answers(model, tokens, places, visual, words, length, mask)
    answer = words.gather(2, (length - 1).clamp(min=0)[..., None])[..., 0]
    losses = F.cross_entropy(logits[:, :, 0].flatten(0, 1), answer.flatten(), reduction="none")
    ends = F.cross_entropy(logits[:, :, 1].flatten(0, 1), torch.full_like(answer, EOS).flatten(), reduction="none")
    return losses + 0.02 * ends, family.flatten()


@torch.no_grad()
def judge_decoder(model: Any, bank: TokenBank, *, batch: int = 32) -> dict[str, float]:
    """Accuracy of every family on full prefixes, among the options."""
    device = bank.tokens.device
    questions = bank.family.shape[1]
    mask = block_mask(bank.visual + 2, questions, device)
    places = torch.arange(bank.visual, device=device)
    right = torch.zeros(len(KINDS_ASKED), device=device)
    asked = torch.zeros(len(KINDS_ASKED), device=device)
    for start in range(0, len(bank.tokens), batch):
        rows = slice(start, start + batch)
        words, length, family = bank.words[rows], bank.length[rows], bank.family[rows]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = read_answers(
                model, bank.tokens[rows], places.expand(len(words), -1), bank.visual, words, length, mask
            )[:, :, 0]
        options = bank.options[rows]
        offered = logits.gather(2, options.clamp(min=0)).masked_fill(options < 0, -torch.inf)
        said = options.gather(2, offered.argmax(-1, keepdim=True))[..., 0]
        answer = words.gather(2, (length - 1).clamp(min=0)[..., None])[..., 0]
        known = family >= 0
        right.index_add_(0, family[known], (said == answer)[known].float())
        asked.index_add_(0, family[known], torch.ones_like(family[known], dtype=torch.float))
    share = (right / asked.clamp(min=1)).tolist()
    found = {name: round(share[number], 4) for number, name in enumerate(KINDS_ASKED) if asked[number] > 0}
    return found | {"macro": round(sum(found[name] for name in FAMILIES if name in found) / len(FAMILIES), 4)}
