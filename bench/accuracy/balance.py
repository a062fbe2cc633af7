"""Whether frames without their order tell which of two shapes came first: counted over scenes, without rendering.

    python -m bench.accuracy.balance [--scenes 3000] [--split train]

Of every pair that is asked about, the two are compared in what any set of frames shows. The one that came first must
have more as often as less, and a classifier by all of it together must be right as often as wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from compress.accuracy.questions import ask
from compress.accuracy.scene import Scene, Thing, make_scene

Z95: Final = 1.96
RIDGE: Final = 30.0
"""Penalty of the classifier on its weights."""


def compare(scene: Scene, a: Thing, b: Thing) -> dict[str, float]:
    """By how much one shape exceeds another in what could tell which came first."""
    frames = scene.sampled
    seen = [one.seen(frames) for one in (a, b)]
    quarter = len(frames) // 4
    values = {
        "frames": [one.sum() for one in seen],
        "frames in the middle": [one[quarter + 2 : -quarter - 2].sum() for one in seen],
        "pictures": [one.stop - one.start for one in (a, b)],
        "way": [one.distance for one in (a, b)],
        "pictures under way": [one.arrives - one.leaves for one in (a, b)],
        "mean x": [one.place(frames)[there, 0].mean() for one, there in zip((a, b), seen, strict=True)],
        "mean y": [one.place(frames)[there, 1].mean() for one, there in zip((a, b), seen, strict=True)],
        "radius": [one.radius for one in (a, b)],
        "place in drawing": [scene.things.index(one) for one in (a, b)],
    }
    for kind in ("shape", "count", "digit", "letter", "event"):
        beside = [thing.seen(frames) for thing in scene.things if thing.kind == kind and thing not in (a, b)]
        values[f"frames with {kind}"] = [(one & np.any(beside, axis=0)).sum() if beside else 0 for one in seen]
    return {name: float(one) - float(other) for name, (one, other) in values.items()}


def find_pairs(scenes: Iterable[Scene]) -> Iterator[tuple[Scene, Thing, Thing]]:
    """Scene, the shape that came first and the other, for every pair that is asked about."""
    for scene in scenes:
        shapes = {thing.name: thing for thing in scene.things if thing.kind == "shape"}
        for question in ask(scene, scene.sampled):
            if question.family == "order" and "first" in question.text:
                (late,) = set(question.options) - {question.answer}
                yield scene, shapes[question.answer], shapes[late]


def classify(differences: NDArray[np.float64], *, seed: int = 0) -> tuple[float, int]:
    """Share of the second half of the pairs that a ridge classifier of the first half gets right, and their number.

    Args:
        differences: (pairs, features), first comer less the other.
        seed: of which of a pair is put first.
    """
    sides = np.random.default_rng(seed).choice([-1.0, 1.0], len(differences))
    scaled = sides[:, None] * differences / np.maximum(differences.std(axis=0), 1e-9)
    # Odd in the pair like the answer: exchanging the two turns all features.
    products = (scaled[:, :, None] * np.abs(scaled)[:, None, :]).reshape(len(scaled), -1)
    features = np.concatenate([scaled, products], axis=1)
    half = len(features) // 2
    gram = features[:half].T @ features[:half] + RIDGE * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, features[:half].T @ sides[:half])
    right = (features[half:] @ weights > 0) == (sides[half:] > 0)
    return float(right.mean()), len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--split", default="train")
    options = parser.parse_args()
    scenes = (make_scene(seed, split=options.split) for seed in range(options.scenes))
    found = [compare(*pair) for pair in find_pairs(scenes)]
    print(f"{len(found)} pairs in {options.scenes} scenes; the one that came first has more, % of those that differ:")
    table = np.array([list(one.values()) for one in found])
    for name, column in zip(found[0], table.T, strict=True):
        signs = column[column != 0] > 0
        print(f"  {name:20} {100 * signs.mean():5.1f} +-{50 * Z95 / np.sqrt(len(signs)):.1f} of {len(signs)}")
    right, asked = classify(table)
    print(f"  {'all of it together':20} {100 * right:5.1f} +-{50 * Z95 / np.sqrt(asked):.1f} of {asked}")


if __name__ == "__main__":
    main()
