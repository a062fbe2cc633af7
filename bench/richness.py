"""Fast spectral entropy against the exact one: time per segment, and error over spectra whose entropy is known.

    python -m bench.richness [--draws 16] [--repeats 5]        (a minute)

Times are CPU times of one thread, medians of interleaved rounds, 196 tokens of width 3584 a frame. Spectra lie between
nearly flat and nearly rank one: powers of the rank, and a flat tail under a few dominant directions; their entropy
follows from the singular values themselves. Besides the fixed random vectors of the package others are drawn. Results
go to bench/results/richness.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.compress import make_video
from compress.ops import spectral_entropy
from compress.ops.spectral_entropy import exact_entropy, finish_entropy, sketch_spectra

OUT = Path(__file__).resolve().parent / "results" / "richness.json"
SEGMENTS = (4, 8, 16)
"""Frames of the segments that are timed."""
ROWS, WIDTH = 784, 3584
"""Tokens of a segment of four frames, and their width: the matrices whose spectra are known."""


def estimate(blocks: Tensor) -> float:
    """Estimate the entropy of one segment, (F, N, D), as InfoMerge does by default."""
    one = torch.zeros(len(blocks), dtype=torch.int64)
    fields = (field.double().numpy() for field in sketch_spectra(blocks, one, 1).tensors())
    return float(finish_entropy(*fields)[0])


def spectra() -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Singular values by name."""
    rank = np.arange(1, ROWS + 1)
    for exponent in np.linspace(0.1, 2.7, 14):
        yield f"rank to the power -{exponent:.1f}", rank**-exponent
    for dominant in (1, 4, 16, 24, 48, 96, 192):
        for share in (0.3, 0.9):
            energy = np.full(ROWS, (1 - share) / (ROWS - dominant))
            energy[:dominant] = share / dominant
            yield f"{dominant} directions with {share:.0%}", np.sqrt(energy)


def measure_errors(draws: int) -> dict[str, Any]:
    """Compare estimates with known entropies, for the vectors of the package and for others."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, ROWS, generator=generator)).Q for size in (ROWS, WIDTH))
    errors: dict[str, list[float]] = {"package": [], "others": []}
    rows = []
    for name, values in spectra():
        matrix = (left * torch.from_numpy(values).float()) @ right.T
        share = values**2 / (values**2).sum()
        true = float(-(share * np.log(share)).sum())
        found = [abs(_with_seed(spectral_entropy.SEED + draw, matrix) / true - 1) for draw in range(draws + 1)]
        errors["package"].append(found[0])
        errors["others"] += found[1:]
        rows.append({"spectrum": name, "energy of the top 20": float(share[:20].sum()), "error": found[0]})
    return {
        group: {"most": max(values), "root mean square": float(np.sqrt(np.mean(np.square(values))))}
        for group, values in errors.items()
    } | {"spectra": rows, "draws": draws}


def _with_seed(seed: int, matrix: Tensor) -> float:
    with (
        patch.object(spectral_entropy, "_random_vectors", spectral_entropy._random_vectors.__wrapped__),
        patch.object(spectral_entropy, "SEED", seed),
    ):
        return estimate(matrix.view(4, ROWS // 4, WIDTH))


def measure_times(repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds by number of frames."""
    found = {}
    for frames in SEGMENTS:
        tokens, _ = make_video(frames, 196, WIDTH, torch.float32, torch.device("cpu"))
        calls: dict[str, Callable[[], Any]] = {
            "fast": lambda tokens=tokens: estimate(tokens),
            "exact": lambda tokens=tokens: exact_entropy(tokens.flatten(0, 1)),
            "fast again": lambda tokens=tokens: estimate(tokens),
        }
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(repeats + 1):
            for name, call in calls.items():
                start = time.thread_time()
                call()
                if turn:
                    seconds[name].append(time.thread_time() - start)
        found[f"{frames} frames"] = {name: statistics.median(values) for name, values in seconds.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        result = {"seconds": measure_times(options.repeats), "relative error": measure_errors(options.draws)}
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({**result, "relative error": {**result["relative error"], "spectra": "..."}}, indent=1))


if __name__ == "__main__":
    main()
