"""Results as if they had been measured, with known shares of right answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compress.accuracy.measure import FULL, Cell, Examined, Job, cell_name
from compress.accuracy.methods import choose
from compress.accuracy.questions import FAMILIES

ABOUT = {"split": "test", "clips": 40, "questions": 320, "world": "w", "weights": "m", "device": "cpu", "versions": {}}


def make_job(methods: str = "default", *, retentions: tuple[float, ...] = (0.5, 0.3, 0.2, 0.15, 0.1, 0.05)) -> Job:
    return Job(cache=Path("unused"), split="test", methods=choose(methods), retentions=retentions)


def fabricate(job: Job, *, clips: int = 40, per_clip: int = 8, seed: int = 0) -> list[Examined]:
    """Every family in turn; a method is right more often the more it keeps, each at its own rate."""
    rng = np.random.default_rng(seed)
    rates = {method.name: 0.4 + 0.5 * index / len(job.methods) for index, method in enumerate(job.methods)}
    found = []
    for clip in range(clips):
        families = [FAMILIES[(clip + place) % len(FAMILIES)] for place in range(per_clip)]
        luck = rng.random(per_clip)
        full = (luck < 0.95).astype(float).tolist()
        cells = {FULL: Cell(right=full, exact=full, account=None)}
        for method, retention in job.cells:
            threshold = 0.95 * retention ** (0.5 - 0.5 * rates.get(method.name, 1.0))
            right = (luck < threshold).astype(float).tolist() if method.name != "everything" else full
            account = {
                "tokens_in": 784.0,
                "tokens_out": 784.0 if method.kept != "tokens_out" else 784 * retention,
                "tokens_inner": 784.0 * (1 if method.kept == "patches" else retention),
                "patches": retention if method.kept == "patches" else 1.0,
                "macs": 1e9 * retention,
                "tower_macs": 5e9,
                "seconds": 0.01,
            }
            cells[cell_name(method, retention)] = Cell(right=right, exact=[0.0] * per_clip, account=account)
        found.append(Examined(seed=clip, families=families, cells=cells))
    return found
