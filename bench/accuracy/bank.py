"""Tokens that a frozen tower makes of clips, computed once and kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.accuracy.corpus import Corpus, find_files, read
from bench.accuracy.train_tower import encode_frames
from compress.accuracy.drawing import KINDS


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBank:
    """Visual tokens of clips and their questions, on the training device.

    Attributes:
        tokens: float16 (n, V, d).
        busy: float16 (n, V), 0 for an empty cell, 1 for one with an object, 2 for a digit or an event.
        words: int64 (n, Q, 13); the next ones as in `corpus.Corpus`.
        length: int64 (n, Q).
        family: int64 (n, Q).
        options: int64 (n, Q, 4).
    """

    tokens: Tensor
    busy: Tensor
    words: Tensor
    length: Tensor
    family: Tensor
    options: Tensor

    @classmethod
    @torch.no_grad()
    def from_corpus(cls, corpus: Corpus, model: Any, *, bfloat16: bool = False) -> TokenBank:
        """Encode all clips of a corpus, in float32 or faster."""
        device = next(model.parameters()).device
        parts = []
        for frames in torch.from_numpy(corpus.frames).split(8):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                tokens = encode_frames(model, frames.flatten(0, 1).to(device))
            parts.append(tokens.half().view(len(frames), -1, tokens.shape[-1]))
        kind = torch.from_numpy(corpus.kind).flatten(1).to(device)
        needle = (kind == KINDS.index("digit")) | (kind > KINDS.index("letter"))
        return cls(
            tokens=torch.cat(parts),
            busy=(kind >= 0).half() + needle.half(),
            words=torch.from_numpy(corpus.words).long().to(device),
            length=torch.from_numpy(corpus.length).long().to(device),
            family=torch.from_numpy(corpus.family).long().to(device),
            options=torch.from_numpy(corpus.options).long().to(device),
        )

    @classmethod
    def join(cls, parts: Sequence[TokenBank]) -> TokenBank:
        """Join the clips of several banks into one."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    @property
    def visual(self) -> int:
        """Tokens of a clip."""
        return self.tokens.shape[1]


def open_bank(folder: Path, split: str, model: Any, cache: Path) -> TokenBank:
    """Encode the tokens of a split of a corpus file by file; read them from the cache where they exist.

    Args:
        folder: of the corpus.
        split: its name.
        model: whose tower makes the tokens.
        cache: where they are kept, in a folder named after the tower's weights.

    Raises:
        FileNotFoundError: the corpus is not there.
    """
    device = next(model.parameters()).device
    kept = cache / f"tokens-{digest_tower(model)}"
    kept.mkdir(parents=True, exist_ok=True)
    parts = []
    for file in find_files(folder, split):
        tokens = kept / f"{file.stem}.safetensors"
        if not tokens.exists():
            made = TokenBank.from_corpus(read([file]), model, bfloat16=True)
            part = tokens.with_suffix(".part")
            save_file({field.name: getattr(made, field.name).cpu().contiguous() for field in fields(made)}, part)
            part.rename(tokens)
        parts.append(TokenBank(**load_file(tokens, device=str(device))))
    return TokenBank.join(parts)


def digest_tower(model: Any) -> str:
    """Twelve hexadecimal digits over the weights of tower and projector."""
    digest = hashlib.sha256()
    for module in (model.model.vision_tower, model.model.multi_modal_projector):
        for name, value in sorted(module.named_parameters()):
            digest.update(name.encode() + value.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]
