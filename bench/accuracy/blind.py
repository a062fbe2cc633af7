"""What questions give away without a video: the demo model's decoder, trained from scratch on their words alone.

    python -m bench.accuracy.blind [--scenes 4000] [--steps 600] [--out bench/results/accuracy_blind.json]

The strongest test for leaks: templates, options and names that go together would lift it above guessing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.accuracy.corpus import KINDS_ASKED, LONGEST
from bench.accuracy.train_tower import rate
from compress.accuracy.questions import CHANCE, FAMILIES, WORDS, Question, ask
from compress.accuracy.scene import make_scene
from compress.demo import WordTokenizer, build

Z99 = 2.576


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Questions without videos.

    Attributes:
        words: int64 (n, 13), questions with "answer", padded with 0.
        last: int64 (n,), place of "answer".
        options: int64 (n, 4), -1 where there are fewer.
        answer: int64 (n,).
        family: int64 (n,), index into `corpus.KINDS_ASKED`.
    """

    words: Tensor
    last: Tensor
    options: Tensor
    answer: Tensor
    family: Tensor

    @classmethod
    def from_questions(cls, questions: Iterable[Question]) -> Texts:
        """Questions as ids."""
        tokenizer = WordTokenizer(WORDS)
        rows: list[tuple[list[int], int, list[int], int, int]] = []
        for one in questions:
            ids = [WORDS.index("<bos>"), *tokenizer.encode(f"{one.text} answer")]
            options = tokenizer.encode(" ".join(one.options))
            options += [-1] * (4 - len(options))
            answer = WORDS.index(one.answer)
            rows.append(
                (ids + [0] * (LONGEST - len(ids)), len(ids) - 1, options, answer, KINDS_ASKED.index(one.family))
            )
        columns = [torch.tensor(column) for column in zip(*rows, strict=True)]
        return cls(words=columns[0], last=columns[1], options=columns[2], answer=columns[3], family=columns[4])


def answer(model: Any, texts: Texts, rows: Tensor | slice) -> Tensor:
    """Logits of the answers to some questions, float32 (n, words)."""
    words, last = texts.words[rows], texts.last[rows]
    hidden = model.model.language_model(input_ids=words, use_cache=False).last_hidden_state
    picked = hidden[torch.arange(len(words)), last]
    logits: Tensor = (picked @ model.model.language_model.embed_tokens.weight.T).float()
    return logits


def train_blind(texts: Texts, *, steps: int, batch: int, seed: int, learning_rate: float = 1e-3) -> tuple[Any, float]:
    """Train the decoder for the given steps; return it and its last loss in nats, a mean over 50 steps."""
    torch.manual_seed(seed)
    model = build(WORDS).train()
    rng = torch.Generator().manual_seed(seed)
    trained = list(model.model.language_model.parameters())
    optimiser = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    losses: list[float] = []
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * rate(step / steps)
        rows = torch.randint(len(texts.words), (batch,), generator=rng)
        loss = F.cross_entropy(answer(model, texts, rows), texts.answer[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), sum(losses[-50:]) / len(losses[-50:])


@torch.inference_mode()
def judge_blind(model: Any, texts: Texts) -> dict[str, dict[str, float]]:
    """Accuracy per family among the options, with the 99 % interval of guessing."""
    parts = [answer(model, texts, slice(start, start + 1000)) for start in range(0, len(texts.words), 1000)]
    offered = torch.cat(parts).gather(1, texts.options.clamp(min=0)).masked_fill(texts.options < 0, -torch.inf)
    right = texts.options.gather(1, offered.argmax(1, keepdim=True))[:, 0] == texts.answer
    found = {}
    for name in FAMILIES:
        mine = texts.family == KINDS_ASKED.index(name)
        count, chance = int(mine.sum()), CHANCE[name]
        found[name] = {
            "questions": count,
            "accuracy": round(float(right[mine].float().mean()), 4),
            "chance": chance,
            "interval": round(Z99 * math.sqrt(chance * (1 - chance) / max(count, 1)), 4),
        }
    return found


def collect(split: Any, scenes: int) -> Texts:
    """Collect the questions of the first scenes of a split."""
    made = (make_scene(seed, split=split) for seed in range(scenes))
    return Texts.from_questions(question for scene in made for question in ask(scene, scene.sampled))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4000, help="of the split train")
    parser.add_argument("--asked", type=int, default=1000, help="scenes of the split test")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("bench/results/accuracy_blind.json"))
    options = parser.parse_args()
    texts = collect("train", options.scenes)
    model, loss = train_blind(texts, steps=options.steps, batch=options.batch, seed=options.seed)
    found = judge_blind(model, collect("test", options.asked))
    record = {"trained_on": len(texts.words), "steps": options.steps, "loss": round(loss, 4), "families": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, one in found.items():
        over = one["accuracy"] - one["chance"]
        print(f"{name:8} {one['accuracy']:.3f}, chance {one['chance']:.2f} +- {one['interval']:.3f}"
              f"{'  LEAKS' if over > one['interval'] else ''}")  # fmt: skip


if __name__ == "__main__":
    main()
