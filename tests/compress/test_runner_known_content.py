"""The project's own clips, whose content is known by construction: what methods make of it, from file to tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import codecmeta
from compress.encoders import SpectralEncoder
from compress.encoders.spectral import COVERED, TOKEN_GRID
from compress.infomerge import InfoMerge
from compress.metom import BTM, RPM
from compress.stage import Compression, Signals
from compress.video import CompressedVideo, compress_video

DATA = Path(__file__).resolve().parent.parent.parent / "data"
EXPECTED: dict[str, Any] = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))["clips"]
FRAMES = 32
EVENT = "event_h264.mp4"


class Remembering(SpectralEncoder):
    """The encoder, which encodes the same frames once."""

    seen: ClassVar[dict[int, tuple[NDArray[np.uint8] | Tensor, Tensor]]] = {}

    def encode(self, frames: NDArray[np.uint8] | Tensor, *, device: torch.device | str | None = None) -> Tensor:
        if id(frames) not in self.seen:
            self.seen[id(frames)] = frames, super().encode(frames, device=device)
        return self.seen[id(frames)][1]


class PatchesAndTokens:
    """RPM before the encoder and BTM after it."""

    def __init__(self, retention: float) -> None:
        self.retention = retention

    def before_encoder(self, density: Tensor | NDArray[np.float32]) -> Compression:
        return RPM().before_encoder(density)

    def before_llm(self, tokens: Tensor, signals: Signals) -> Compression:
        return BTM(retention=self.retention).before_llm(tokens, signals)


def sampled(name: str) -> NDArray[np.int64]:
    """Frame numbers that uniform:32 takes."""
    count = EXPECTED[name]["frames"]
    return np.array([int((index + 0.5) * count / FRAMES) for index in range(FRAMES)])


def in_event(name: str) -> NDArray[np.bool_]:
    first, last = EXPECTED[name]["event"]
    index = sampled(name)
    return np.asarray((index >= first) & (index < last))


def on_sprites(name: str) -> NDArray[np.bool_]:
    """Tokens whose centre lies well inside the box of a sprite, bool (32, 14, 14)."""
    clip = EXPECTED[name]
    inside = np.zeros((FRAMES, *TOKEN_GRID), bool)
    y = ((np.arange(TOKEN_GRID[0]) + 0.5) * COVERED / TOKEN_GRID[0] * clip["height"])[:, None]
    x = ((np.arange(TOKEN_GRID[1]) + 0.5) * COVERED / TOKEN_GRID[1] * clip["width"])[None, :]
    for sprite in clip["sprites"]:
        first, last = sprite["frames"]
        for row, frame in enumerate(sampled(name)):
            box = sprite["boxes"][frame - first] if first <= frame < last else None
            if box is not None:
                left, top, width, height = box
                across = np.abs(x - left - width / 2) < 0.35 * width
                inside[row] |= across & (np.abs(y - top - height / 2) < 0.35 * height)
    return inside


@pytest.fixture(scope="module")
def extract() -> Callable[[str], codecmeta.VideoMeta]:
    """Metadata of a clip, read once."""
    read: dict[str, codecmeta.VideoMeta] = {}

    def once(name: str) -> codecmeta.VideoMeta:
        if name not in read:
            read[name] = codecmeta.extract(DATA / name)
        return read[name]

    return once


def compress(meta: codecmeta.VideoMeta, method: object, **options: Any) -> CompressedVideo:
    return compress_video(meta, method, encoder=Remembering(), **options)


def ratio(values: NDArray[Any], chosen: NDArray[np.bool_]) -> float:
    return float(values[chosen].mean() / values[~chosen].mean())


@pytest.mark.parametrize("retention", [0.05, 0.1, 0.3, 0.5])
def test_btm_gives_the_event_twice_the_tokens_of_the_stretch(
    retention: float, extract: Callable[[str], codecmeta.VideoMeta]
) -> None:
    meta, event = extract(EVENT), in_event(EVENT)
    video = compress(meta, PatchesAndTokens(retention))
    assert event.sum() == 3
    assert video.compression.frame_budgets is not None
    assert ratio(video.compression.frame_budgets, event) >= 2
    if retention < 0.5:  # there the event's frames are whole, and what repeats in them leaves its slots to others
        assert ratio(video.compression.frame_counts, event) >= 2
    even = BTM(retention=retention).frame_budgets(np.ones(FRAMES), tokens_per_frame=196)
    assert ratio(even, event) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("retention", [0.05, 0.1, 0.15, 0.3])
def test_caba_gives_the_event_twice_the_context_tokens_of_the_stretch(
    retention: float, extract: Callable[[str], codecmeta.VideoMeta]
) -> None:
    meta, event = extract(EVENT), in_event(EVENT)

    def context(method: InfoMerge) -> NDArray[np.float64]:
        segments = compress(meta, method).compression.segments
        return np.concatenate([np.full(s.frames, s.context / s.frames) for s in segments])

    assert ratio(context(InfoMerge(retention=retention)), event) >= 2
    by_length = context(InfoMerge(retention=retention, alpha=0.0, beta=0.0))
    assert ratio(by_length, event) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("retention", [0.05, 0.1, 0.3])
def test_infomerge_gives_the_event_more_tokens_in_all(
    retention: float, extract: Callable[[str], codecmeta.VideoMeta]
) -> None:
    """Salient tokens are the same number in every frame by definition, so less than CABA's share alone."""
    counts = compress(extract(EVENT), InfoMerge(retention=retention)).compression.frame_counts
    assert ratio(counts, in_event(EVENT)) >= 1.5


def test_segments_begin_where_the_event_does(extract: Callable[[str], codecmeta.VideoMeta]) -> None:
    starts = {s.start for s in compress(extract(EVENT), InfoMerge()).compression.segments}
    frames = np.flatnonzero(in_event(EVENT))
    assert {int(frames[0]), int(frames[-1]) + 1} <= starts


def test_segments_begin_at_the_cut(extract: Callable[[str], codecmeta.VideoMeta]) -> None:
    name = "cut_h264.mkv"
    meta = extract(name)
    first_of_second_shot = int(np.searchsorted(sampled(name), EXPECTED[name]["cut"]))
    only_cuts = InfoMerge(c=1)
    starts = [s.start for s in compress(meta, only_cuts).compression.segments]
    assert starts == [0, first_of_second_shot]


@pytest.mark.parametrize("name", [name for name in EXPECTED if EXPECTED[name]["sprites"]])
def test_moving_objects_keep_more_tokens_per_patch_than_the_rest(
    name: str, extract: Callable[[str], codecmeta.VideoMeta]
) -> None:
    video = compress(extract(name), PatchesAndTokens(0.1))
    kept = np.zeros(FRAMES * 196)
    kept[video.compression.plan.keep.numpy()] = 1
    moving = on_sprites(name)
    assert moving.sum() >= 10
    assert ratio(kept.reshape(moving.shape), moving) > 4
    elsewhere = np.roll(moving, 7, axis=2) & ~moving
    assert kept.reshape(moving.shape)[moving].mean() > 2 * kept.reshape(moving.shape)[elsewhere].mean()


def test_events_digit_stays_whole(extract: Callable[[str], codecmeta.VideoMeta]) -> None:
    """In its first frame nearly all tokens on the card stay; in the frame before, few do at the same place."""
    flat = np.zeros(FRAMES * 196)
    flat[compress(extract(EVENT), PatchesAndTokens(0.3)).compression.plan.keep.numpy()] = 1
    kept = flat.reshape(FRAMES, *TOKEN_GRID)
    first = int(np.flatnonzero(in_event(EVENT))[0])
    card = on_sprites(EVENT)[first]
    assert kept[first][card].mean() > 0.9
    assert kept[first - 1][card].mean() < 0.5


def test_still_clip_needs_hardly_more_than_one_frame(extract: Callable[[str], codecmeta.VideoMeta]) -> None:
    """All frames are alike, so half of the core tokens meet a twin in each round of pairing."""
    meta = extract("still_h264.mp4")
    budget = BTM(retention=0.3).frame_budgets(meta.gop_packet_size(), tokens_per_frame=196)
    counts = [
        compress(meta, BTM(retention=0.3, rounds=rounds, refill=False), map="texture").compression.achieved
        for rounds in (1, 6)
    ]
    assert counts[0] < 0.55 * budget.sum()
    assert counts[1] < 0.1 * budget.sum()


def test_stored_and_extracted_metadata_give_the_same_tokens(
    extract: Callable[[str], codecmeta.VideoMeta], tmp_path: Path
) -> None:
    meta = extract(EVENT)
    meta.save(tmp_path / "x.npz")
    stored = compress(codecmeta.load(tmp_path / "x.npz"), PatchesAndTokens(0.2))
    assert torch.equal(stored.tokens, compress(meta, PatchesAndTokens(0.2)).tokens)
