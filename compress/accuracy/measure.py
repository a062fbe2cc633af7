"""Measurement of the questions that a model answers correctly over shortened tokens: every method at every retention.

    compress accuracy [--methods default] [--retention 0.5,0.3,0.2,0.15,0.1,0.05] [--slice 500]

Clips are examined by worker processes of one thread each. Answers are kept per method and clip, in a folder named after
everything that they depend on, so that a run asks only what no run before it asked.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

import codecmeta
import compress
from compress.accuracy import answering, clips, extremes, methods, tower
from compress.accuracy.answering import Account, Examinee, Read, Sheet, mark
from compress.accuracy.clips import Clip, digest_world, open_clip
from compress.accuracy.methods import IDENTITY, Measured
from compress.accuracy.scene import SAMPLED, Split
from compress.accuracy.tower import TowerMemory
from compress.demo import load

RETENTIONS: Final = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05)
MODEL_FILES: Final = ("config.json", "generation_config.json", "model.safetensors", "vocab.json")
"""What answers depend on; the wheel holds no more of the folder."""
FULL: Final = "full"
"""The row of the model without a compressor."""


class MeasurementError(RuntimeError):
    """A method failed on a clip, which must not count as a wrong answer."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Job of a measurement.

    Attributes:
        cache: folder of rendered clips and of answers.
        split: which scenes.
        methods: which methods.
        retentions: at which retained fractions.
        weights: folder of the model; None for the one of the package.
        device: where to compute.
        frames: sampled of each clip; the model was trained on 16.
    """

    cache: Path
    split: Split
    methods: tuple[Measured, ...]
    retentions: tuple[float, ...] = RETENTIONS
    weights: Path | None = None
    device: str = "cpu"
    frames: int = SAMPLED

    @property
    def cells(self) -> list[tuple[Measured, float]]:
        """Methods and retentions, the identity first."""
        return [(IDENTITY, 1.0), *((method, share) for method in self.methods for share in self.retentions)]

    @property
    def stores(self) -> dict[Path, frozenset[str]]:
        """Files of answers, one per method, and the cells of this job that each holds."""
        folder = self.cache / "answers" / self.digest()
        names: dict[Path, set[str]] = {folder / f"{FULL}.jsonl": {FULL}}
        for method, retention in self.cells:
            settings = hashlib.sha256(repr(method).encode()).hexdigest()[:8]
            file = folder / f"{re.sub('[^a-z0-9-]', '-', method.name)}-{settings}.jsonl"
            names.setdefault(file, set()).add(cell_name(method, retention))
        return {path: frozenset(found) for path, found in names.items()}

    def digest(self) -> str:
        """Digest the sources, the weights and what is common to all methods, sixteen hexadecimal digits."""
        digest = hashlib.sha256((digest_world() + digest_weights(self.weights)).encode())
        for module in (answering, clips, extremes, methods, tower):
            digest.update(Path(str(module.__file__)).read_bytes())
        for package in (codecmeta, compress):
            for path in sorted(Path(package.__path__[0]).rglob("*.py")):
                digest.update(path.read_bytes())
        described = [self.split, self.device.split(":")[0], self.frames, torch.__version__]
        digest.update(json.dumps(described).encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A method at a retention on one clip.

    Attributes:
        right: per question, the share of runs that chose the right one of its options.
        exact: likewise, among all words.
        account: of the tokens; None for the plain model.
    """

    right: list[float]
    exact: list[float]
    account: dict[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """A clip with answers.

    Attributes:
        seed: of the clip.
        families: of its questions.
        cells: by `cell_name`, and `FULL`.
    """

    seed: int
    families: list[str]
    cells: dict[str, Cell] = field(default_factory=dict)

    @staticmethod
    def from_json(line: str) -> Examined:
        """Read what ``json.dumps(asdict(examined))`` wrote."""
        fields = json.loads(line)
        return Examined(**{**fields, "cells": {name: Cell(**cell) for name, cell in fields["cells"].items()}})


def cell_name(method: Measured, retention: float) -> str:
    """Return the key of a method at a retention."""
    return f"{method.name}@{retention:g}"


def digest_weights(folder: Path | None) -> str:
    """Digest what the model is loaded from, twelve hexadecimal digits; the log of its training does not count."""
    from compress.demo import WEIGHTS

    digest = hashlib.sha256()
    for name in MODEL_FILES:
        path = (folder or WEIGHTS) / name
        digest.update(name.encode() + (path.read_bytes() if path.exists() else b""))
    return digest.hexdigest()[:12]


def examine(examinee: Examinee, clip: Clip, job: Job, *, known: Collection[str] = ()) -> Examined:
    """Ask all questions about a clip, of the plain model and over what every method leaves of it.

    Args:
        examinee: the model.
        clip: the clip.
        job: its methods and retentions.
        known: cells that need not be asked.

    Returns:
        The clip with the other cells.

    Raises:
        MeasurementError: a method fails, or keeping all tokens changes a bit of an answer.
    """
    sheet = examinee.write_sheet(clip.meta, clip.questions)
    memory = examinee.look(clip.meta)
    found: dict[str, Cell] = {}
    identity = cell_name(IDENTITY, 1.0)
    if not {FULL, identity} <= set(known):
        plain = examinee.answer_plain(sheet, memory)
        (read,) = _read_all(examinee, sheet, memory, clip, IDENTITY, 1.0)
        ((logits,), account) = (_ask_all(examinee, sheet, [read]), read.account)
        if not np.array_equal(logits, plain):
            raise MeasurementError(f"{clip.name}: answers over all tokens differ from those of the plain model")
        found = {FULL: _grade(sheet, [plain], None), identity: _grade(sheet, [logits], [account])}
    for retention in job.retentions:
        left = [method for method in job.methods if cell_name(method, retention) not in known]
        reads = [_read_all(examinee, sheet, memory, clip, method, retention) for method in left]
        answers = iter(_ask_all(examinee, sheet, [one for many in reads for one in many]))
        for method, many in zip(left, reads, strict=True):
            logits_of = [next(answers) for _ in many]
            found[cell_name(method, retention)] = _grade(sheet, logits_of, [one.account for one in many])
    named = [FULL, *(cell_name(*cell) for cell in job.cells)]
    cells = {name: found[name] for name in named if name in found and name not in known}
    return Examined(seed=clip.seed, families=list(sheet.families), cells=cells)


def _ask_all(examinee: Examinee, sheet: Sheet, reads: Sequence[Read]) -> list[NDArray[np.float32]]:
    """Ask after all versions of a video together; a method that looks at each question has its answers already."""
    prefixes = [one.prefix for one in reads if one.prefix is not None]
    answers = iter(examinee.ask(sheet, prefixes) if prefixes else ())
    return [one.answers if one.prefix is None else next(answers) for one in reads]


def _read_all(
    examinee: Examinee, sheet: Sheet, memory: TowerMemory, clip: Clip, method: Measured, retention: float
) -> list[Read]:
    """Read what a method leaves of a clip, once per draw."""
    found = []
    for draw in range(method.draws):
        try:
            compressor = method.build(retention, seed=clip.seed, draw=draw, occupied=clip.labels.occupied)
            found.append(examinee.read(sheet, memory, clip.meta, compressor, map=method.map))
        except Exception as error:
            raise MeasurementError(f"{cell_name(method, retention)} on {clip.name}: {error}") from error
    return found


def _grade(sheet: Sheet, logits: Sequence[NDArray[np.float32]], accounts: Sequence[Account] | None) -> Cell:
    right, exact = np.mean([mark(sheet, one) for one in logits], axis=0)
    account = None if accounts is None else _mean_account(accounts)
    return Cell(right=right.tolist(), exact=exact.tolist(), account=account)


def measure(job: Job, count: int, *, workers: int = 1, progress: Callable[[int], None] | None = None) -> list[Examined]:
    """Examine the first clips of a split, or read what an earlier run with the same settings found.

    Args:
        job: what to measure.
        count: how many.
        workers: processes; 1 works in this one.
        progress: called with the number of clips that are done.

    Raises:
        MeasurementError: a method failed.
    """
    done = {seed: Examined(seed=seed, families=[]) for seed in range(count)}
    stores = job.stores
    for path, names in stores.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        for one in _read(path):
            if one.seed < count:
                done[one.seed].families[:] = one.families
                done[one.seed].cells.update({name: cell for name, cell in one.cells.items() if name in names})
    wanted = [FULL, *(cell_name(*cell) for cell in job.cells)]
    left = {seed: frozenset(one.cells) for seed, one in done.items() if not one.cells.keys() >= set(wanted)}
    if progress is not None:
        progress(count - len(left))
    for number, one in enumerate(_examine_all(job, left, workers), count - len(left) + 1):
        _keep(stores, one)
        done[one.seed].families[:] = one.families
        done[one.seed].cells.update(one.cells)
        if progress is not None:
            progress(number)
    return [replace(one, cells={name: one.cells[name] for name in wanted}) for one in done.values()]


def _keep(stores: Mapping[Path, Collection[str]], examined: Examined) -> None:
    """Write the answers about a clip to the files of their methods."""
    for path, names in stores.items():
        cells = {name: cell for name, cell in examined.cells.items() if name in names}
        if cells:
            with path.open("a", encoding="ascii") as file:
                file.write(json.dumps(asdict(replace(examined, cells=cells))) + "\n")


def default_workers(device: str) -> int:
    """Count processes: one per available core; few enough on an accelerator that each has work for it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if device == "cpu" else min(cores, 8)


def describe(job: Job, results: Sequence[Examined]) -> dict[str, Any]:
    """Describe what the figures belong to."""
    import transformers

    return {
        "split": job.split,
        "frames": job.frames,
        "clips": len(results),
        "questions": sum(len(one.families) for one in results),
        "world": digest_world(),
        "weights": digest_weights(job.weights),
        "device": job.device.split(":")[0],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _examine_all(job: Job, known: Mapping[int, Collection[str]], workers: int) -> Iterator[Examined]:
    """Examine clips by their seeds, with the cells of each that need not be asked."""
    if workers == 1 or len(known) < 2:
        yield from _examine_some(job, known)
        return
    size = max(1, min(4, len(known) // workers))
    seeds = list(known)
    parts = [{seed: known[seed] for seed in seeds[start : start + size]} for start in range(0, len(seeds), size)]
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for found in pool.map(partial(_examine_part, job), parts):
            yield from found
    finally:
        pool.shutdown(cancel_futures=True)


def _examine_part(job: Job, known: Mapping[int, Collection[str]]) -> list[Examined]:
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    return list(_examine_some(job, known))


def _examine_some(job: Job, known: Mapping[int, Collection[str]]) -> Iterator[Examined]:
    if not known:
        return
    examinee = Examinee(*load(job.weights, device=job.device))
    for seed, cells in known.items():
        clip = open_clip(job.cache, job.split, seed, frames=job.frames)
        yield examine(examinee, clip, job, known=cells)


def _read(store: Path) -> Iterator[Examined]:
    """Read clips of an earlier run; a line that was cut off at its end is written again."""
    if not store.exists():
        return
    whole, _, cut = store.read_text(encoding="ascii").rpartition("\n")
    if cut:
        store.write_text(whole + "\n" if whole else "", encoding="ascii")
    for line in whole.splitlines():
        yield Examined.from_json(line)


def _mean_account(accounts: Sequence[Account]) -> dict[str, float]:
    fields: list[Mapping[str, float]] = [asdict(account) for account in accounts]
    return {name: float(np.mean([one[name] for one in fields])) for name in fields[0]}
