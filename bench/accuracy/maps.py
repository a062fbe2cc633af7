"""Density map that RPM and BTM read: accuracy by each, on validation clips, paired.

    python -m bench.accuracy.maps --clips 40 --weights thinned= --weights seed1=bench/accuracy/weights/seed1 \\
        --out maps.json

The file is written after every clip, so that a study that is stopped has what it found.
Maps by name are those of `codecmeta.VideoMeta.density`; all but `carried` follow from a default record of H.264. The
variants are made of the same signals and tried here only. The choice was made once, by the rule of `choose`, from what
bench/results/density_maps.json holds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codecmeta import DENSITY_MAPS, DensityMap, VideoMeta
from compress.accuracy.answering import Examinee
from compress.accuracy.clips import Clip, default_cache, open_clip
from compress.accuracy.measure import Cell, Examined, Job, cell_name, describe, examine
from compress.accuracy.methods import MEASURED, Measured
from compress.accuracy.results import asked_families, resample
from compress.accuracy.statistics import Floats, draw_weights, macro, summarise
from compress.demo import load

REFERENCE: Final[DensityMap] = "texture"
"""The simplest map, which every record with pixels has; another one must be surely better."""
FLOOR: Final = 0.1
"""Share of its texture that a patch keeps where nothing is coded, in the variants."""
METHODS: Final = (MEASURED["rpm"], MEASURED["btm"])
CORE: Final = MEASURED["btm"].with_settings("btm-core", {"fold": "core"})
"""BTM with the other fold, compared with `btm` by the reference map."""

Maps = NDArray[np.float64]
Draws: TypeAlias = Mapping[str, Mapping[str, Mapping[str, Floats]]]
"""By method, map, and retention or `mean`."""


def spread_evenly(meta: VideoMeta, shape: tuple[int, int]) -> Maps:
    """Ranks that scatter over the picture, the same in every frame: multiples of the golden section."""
    rows, cols = shape
    number = np.arange(rows * cols)
    ranks = (number * 0.6180339887498949) % 1.0
    return np.broadcast_to(ranks.reshape(1, rows, cols), (len(meta.frame_pts), rows, cols))


def _gated(name: DensityMap) -> Callable[[VideoMeta, tuple[int, int]], Maps]:
    """Texture that keeps `FLOOR` where nothing is coded, of the share that `name` weighs by (1 + g) / 2."""

    def measure(meta: VideoMeta, shape: tuple[int, int]) -> Maps:
        texture, weighed = (meta.density(shape, map=one).astype(np.float64) for one in (REFERENCE, name))
        coded = 2 * weighed / np.maximum(texture, 1e-9) - 1
        return texture * np.clip(FLOOR + (1 - FLOOR) * coded, FLOOR, 1)

    return measure


def _mean_with_innovation(meta: VideoMeta, shape: tuple[int, int]) -> Maps:
    return (meta.density(shape, map="texture").astype(np.float64) + meta.density(shape, map="innovation")) / 2


VARIANTS: Final[Mapping[str, Callable[[VideoMeta, tuple[int, int]], Maps]]] = {
    "texture-innovation, floor 0.1": _gated("texture-innovation"),
    "mean of texture and innovation": _mean_with_innovation,
    "packets only": spread_evenly,
}
"""Made on the tokens' own blocks in the place of the innovation."""


def wear(meta: VideoMeta, name: str) -> VideoMeta:
    """Return a record with a variant in the place of its innovation."""
    if meta.energy_innovation is None:
        raise ValueError(f"the record of {meta.info['source']['name']} has no innovation to take the place of")
    energy = VARIANTS[name](meta, meta.energy_innovation.shape[1:])
    extent = np.stack([energy.min((1, 2)), energy.max((1, 2))], axis=1)
    return replace(meta, energy_innovation=energy.astype(np.float32), range_innovation=extent.astype(np.float32))


def examine_by_maps(examinee: Examinee, clip: Clip, job: Job, names: Sequence[str]) -> Examined:
    """Answers about a clip by the job's methods with every map, and by `CORE` with the reference."""
    groups: list[tuple[VideoMeta, list[tuple[str, DensityMap]]]]
    groups = [(clip.meta, [(name, name) for name in DENSITY_MAPS if name in names])]
    groups += [(wear(clip.meta, one), [(one, "innovation")]) for one in VARIANTS if one in names]
    cells: dict[str, Cell] = {}
    for meta, maps in groups:
        methods = [replace(one, name=label(one, name), map=map) for one in job.methods for name, map in maps]
        if meta is clip.meta:
            methods.append(replace(CORE, name=label(CORE, REFERENCE), map=REFERENCE))
        examined = examine(examinee, replace(clip, meta=meta), replace(job, methods=tuple(methods)))
        cells |= examined.cells
    return replace(examined, cells=cells)


def label(method: Measured, map: str) -> str:
    """Name of a method with a map."""
    return f"{method.name} by {map}"


def compare(found: Sequence[Examined], names: Sequence[str], retentions: Sequence[float]) -> Draws:
    """Draws of macro accuracy, by method, map, and retention or their mean."""
    asked, weights = asked_families(found), draw_weights(len(found))
    record: dict[str, dict[str, dict[str, Floats]]] = {}
    for method in (*METHODS, CORE):
        for name in names if method is not CORE else [REFERENCE]:
            one = replace(method, name=label(method, name))
            cells = [macro(resample(found, asked, weights, cell_name(one, share))) for share in retentions]
            entry = {f"{share:g}": cell for share, cell in zip(retentions, cells, strict=True)}
            record.setdefault(method.name, {})[name] = entry | {"mean": np.mean(cells, axis=0)}
    return record


def tabulate(draws: Draws) -> dict[str, Any]:
    """Accuracy of every method by every map, and the paired difference to `REFERENCE`, of `CORE` to `btm`."""
    record: dict[str, Any] = {}
    for method, rows in draws.items():
        others = draws["btm"] if method == CORE.name else rows
        for name, entry in rows.items():
            record.setdefault(method, {})[name] = {
                label: {
                    "accuracy": asdict(summarise(mine)),
                    "minus_reference": asdict(summarise(mine - others[REFERENCE][label])),
                }
                for label, mine in entry.items()
            }
    return record


def choose(draws: Draws, method: str) -> str:
    """Choose the map of a method: `REFERENCE`, unless a map of the default record is significantly better.

    It is compared by the mean over judges and retentions, and is significantly better if its paired interval lies above
    0. Of several such maps the best is taken.
    """
    best, most = REFERENCE, 0.0
    for name in DENSITY_MAPS:
        if name == "carried" or name not in draws[method]:
            continue
        figure = summarise(draws[method][name]["mean"] - draws[method][REFERENCE]["mean"])
        if figure.low > 0 and figure.value > most:
            best, most = name, figure.value
    return best


def _average(draws: Sequence[Draws]) -> Draws:
    """Means over judges, who saw the same clips and resamplings."""
    return {
        method: {
            name: {label: np.mean([one[method][name][label] for one in draws], axis=0) for label in entry}
            for name, entry in rows.items()
        }
        for method, rows in draws[0].items()
    }


def show(judge: str, record: Mapping[str, Any]) -> None:
    """Print accuracy and differences of every method by every map."""
    for method, rows in record.items():
        print(f"{judge}: {method}")
        for name, entry in rows.items():
            cells = []
            for label, one in entry.items():
                less = one["minus_reference"]
                cells.append(f"{label}: {100 * one['accuracy']['value']:5.1f} ({100 * less['value']:+5.1f}, "
                             f"{100 * less['low']:+5.1f} to {100 * less['high']:+5.1f})")  # fmt: skip
            print(f"  {name:30} {'   '.join(cells)}")


def summarise_all(found: Mapping[str, Sequence[Examined]], jobs: Mapping[str, Job], names: Sequence[str]) -> Any:
    """Return the record of the study: every judge, their mean, and what it chooses."""
    draws = {judge: compare(some, names, jobs[judge].retentions) for judge, some in found.items()}
    judges = {
        judge: {"about": describe(jobs[judge], found[judge]), "methods": tabulate(one)} for judge, one in draws.items()
    }
    together = _average(list(draws.values()))
    fold = summarise(together[CORE.name][REFERENCE]["mean"] - together["btm"][REFERENCE]["mean"])
    chosen = {method.name: choose(together, method.name) for method in METHODS}
    chosen["fold"] = "core" if fold.low > 0 else "mean"
    return {"judges": judges, "mean of the judges": tabulate(together), "chosen": chosen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--maps", default=";".join([*DENSITY_MAPS, *VARIANTS]), help="separated by semicolons")
    parser.add_argument("--retention", default="0.3,0.1")
    parser.add_argument("--weights", action="append", metavar="NAME=FOLDER", help="a judge; the package's without")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    names = list(dict.fromkeys([REFERENCE, *options.maps.split(";")]))
    retentions = tuple(float(part) for part in options.retention.split(","))
    jobs, examinees = {}, {}
    for text in options.weights or ["shipped="]:
        judge, _, folder = text.partition("=")
        weights = Path(folder) if folder else None
        jobs[judge] = Job(cache=options.cache, split="val", methods=METHODS, retentions=retentions, weights=weights)
        examinees[judge] = Examinee(*load(weights))
    found: dict[str, list[Examined]] = {judge: [] for judge in jobs}
    for seed in range(options.clips):
        clip = open_clip(options.cache, "val", seed)
        for judge, job in jobs.items():
            found[judge].append(examine_by_maps(examinees[judge], clip, job, names))
        print(f"{seed + 1} of {options.clips} clips", flush=True)
        record = summarise_all(found, jobs, names)
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    for judge, one in record["judges"].items():
        show(judge, one["methods"])
    show("mean of the judges", record["mean of the judges"])
    print(f"chosen: {record['chosen']}")


if __name__ == "__main__":
    main()
