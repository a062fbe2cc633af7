"""How the settings that the papers leave open change accuracy, one at a time around the defaults, and which to take.

    python -m bench.accuracy.tune [--methods metom,infomerge] [--fields map,tau_tem] [--clips 64] [--passes 3]

Everything is chosen on the split val. A value is taken only where it beats the default by more than its paired
interval; settings that buy accuracy with more computation are shown and never chosen. Another pass varies one setting
at a time around what the one before chose, until nothing is better.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from codecmeta import DENSITY_MAPS
from compress.accuracy.clips import default_cache
from compress.accuracy.measure import Examined, Job, cell_name, default_workers, describe, measure
from compress.accuracy.methods import MEASURED, Measured
from compress.accuracy.results import asked_families, resample
from compress.accuracy.statistics import Figure, Floats, draw_weights, macro, summarise
from compress.methods import build
from compress.settings import list_settings

RETENTIONS: Final = (0.3, 0.1)
MAP: Final = "map"
"""Not a field of a method, but of what its density is measured by."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A setting and the values to try.

    Attributes:
        field: of the method, or `MAP`.
        values: as text; the one around which others are tried is left out.
        spends: other values compute more or less, so that accuracy alone cannot choose.
    """

    field: str
    values: tuple[str, ...]
    spends: bool = False


AXES: Final[Mapping[str, tuple[Axis, ...]]] = {
    "metom": (
        Axis(field="target_keep", values=("0.3", "0.5", "0.7", "0.95", "1"), spends=True),
        Axis(field="tau", values=("0.01", "0.03", "0.1", "0.3"), spends=True),
        Axis(field=MAP, values=("auto", *DENSITY_MAPS)),
        Axis(field="connectivity", values=("4", "8")),
        Axis(field="m_min", values=("none", "0", "1", "2", "4")),
        Axis(field="tau_tem", values=("0.7", "0.8", "0.9", "0.95", "0.98", "1")),
        Axis(field="window", values=("none", "1", "2", "4", "8")),
        Axis(field="rounds", values=("1", "2", "3")),
        Axis(field="fold", values=("mean", "size", "core")),
        Axis(field="refill", values=("no", "yes")),
        Axis(field="gop", values=("mean", "total", "packet", "interval")),
        Axis(field="positions", values=("original", "contiguous")),
        Axis(field="layers", values=("1", "2", "3", "4", "1,2", "3,4", "1,2,3"), spends=True),
        Axis(field="merge_percent", values=("0", "25", "75"), spends=True),
        Axis(field="average", values=("mean", "sequential")),
        Axis(field="query", values=("last", "text")),
    ),
    "infomerge": (
        Axis(field="c", values=("1", "2", "4", "8", "12")),
        Axis(field="tau_seg", values=("0.7", "0.8", "0.9", "0.95", "0.98")),
        Axis(field="d", values=("0", "0.2", "0.4", "0.6", "0.8", "1")),
        Axis(field="p", values=("1", "2", "4", "8")),
        Axis(field="k_nn", values=("1", "2", "3", "4", "6", "8")),
        Axis(field="mu", values=("0.4", "0.6", "0.8", "1")),
        Axis(field="ddof", values=("0", "1")),
        Axis(field="normalise", values=("no", "yes")),
        Axis(field="salient_rounding", values=("floor", "nearest")),
        Axis(field="richness", values=("fast", "exact")),
        Axis(field="tie", values=("position", "saliency")),
        Axis(field="substitute", values=("no", "yes")),
        Axis(field="dtm_features", values=("substituted", "original")),
        Axis(field="hard_mask", values=("no", "yes")),
        Axis(field="anchor_from", values=("end", "start")),
        Axis(field="assignment", values=("per_anchor_frame", "segment_global")),
        Axis(field="include_self", values=("no", "yes")),
        Axis(field="positions", values=("original", "contiguous")),
        Axis(field="tau", values=("0.6", "2", "4")),
        Axis(field="rho", values=("0", "0.2")),
        Axis(field="lam", values=("6", "24")),
        Axis(field="alpha", values=("0", "0.5", "2")),
        Axis(field="beta", values=("0", "0.3", "1")),
    ),
}
"""What MeToM's paper leaves open and what InfoMerge's does, whose Table 7 comes last."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A method with one setting changed.

    Attributes:
        value: of the setting.
        accuracy: macro accuracy, mean over the retentions.
        minus_default: less that of the defaults, paired.
        kept: share of tokens that entered the language model, likewise a mean.
        macs: multiply-accumulates of the prefill, likewise.
    """

    value: str
    accuracy: Figure
    minus_default: Figure
    kept: float
    macs: float


def vary(method: Measured, axis: Axis) -> dict[str, Measured]:
    """Return the method with each other value of a setting."""
    now = defaults(method)[axis.field]
    changed = {}
    for value in axis.values:
        fields: dict[str, Any] = {"map": value} if axis.field == MAP else {"settings": {axis.field: value}}
        one = method.with_settings(f"{method.name}:{axis.field}={value}", **{"settings": {}, **fields})
        if defaults(one)[axis.field] != now:
            changed[value] = one
    return changed


def defaults(method: Measured) -> dict[str, str]:
    """Return the settings around which others are tried."""
    fields = list_settings(build(method.base, settings=method.settings))
    return {**{one.name: one.value for one in fields if one.name != "retention"}, MAP: method.map}


def find_axes(method: Measured, fields: Collection[str] | None) -> tuple[Axis, ...]:
    """Find the axes of a method; only those of the named settings, if any are named.

    Raises:
        ValueError: none of them is one of this method's.
    """
    axes = tuple(axis for axis in AXES[method.base] if fields is None or axis.field in fields)
    if not axes:
        raise ValueError(f"{method.base} has none of the settings {', '.join(sorted(fields or ()))}")
    return axes


def tune(
    method: Measured, job: Job, clips: int, *, workers: int, passes: int, fields: Collection[str] | None = None
) -> dict[str, Any]:
    """Vary the settings in several passes, each around the values that the previous pass chose.

    Args:
        method: with its defaults.
        job: where and at which retentions to measure; its methods are ignored.
        clips: how many.
        workers: processes.
        passes: at most.
        fields: settings to vary; None for all.

    Returns:
        What was tried and chosen, ready for JSON.
    """
    current, found = method, []
    chosen: dict[str, str] = {}
    for _ in range(passes):
        record = scan(current, job, clips, workers=workers, fields=fields)
        found.append(record)
        if not record["chosen"]:
            break
        chosen |= record["chosen"]
        current = adopt(current, record["chosen"])
    return {"method": method.name, "retentions": job.retentions, "passes": found, "chosen": chosen}


def adopt(method: Measured, chosen: Mapping[str, str]) -> Measured:
    """Return the method with settings changed, its map among them."""
    settings = {field: value for field, value in chosen.items() if field != MAP}
    return method.with_settings(method.name, settings, map=chosen.get(MAP))


def scan(
    method: Measured, job: Job, clips: int, *, workers: int, fields: Collection[str] | None = None
) -> dict[str, Any]:
    """Sensitivity of a method to each setting by itself, and what is surely better; see `tune`."""
    axes = {axis: vary(method, axis) for axis in find_axes(method, fields)}
    every = [method, *(one for changed in axes.values() for one in changed.values())]

    def tell(done: int) -> None:
        print(f"{done} of {clips} clips, {len(every)} settings", file=sys.stderr, flush=True)

    results = measure(replace(job, methods=tuple(every)), clips, workers=workers, progress=tell)
    weights = draw_weights(clips)
    found = {
        axis: [_compare(value, results, one, method, job.retentions, weights) for value, one in changed.items()]
        for axis, changed in axes.items()
    }
    return {
        "about": describe(job, results),
        "defaults": defaults(method),
        "accuracy": asdict(summarise(_mean_macro(results, method, job.retentions, weights))),
        "axes": [
            {"field": axis.field, "spends": axis.spends, "trials": [asdict(trial) for trial in trials]}
            for axis, trials in found.items()
        ],
        "chosen": {axis.field: better for axis, trials in found.items() if (better := choose(axis, trials))},
    }


def choose(axis: Axis, trials: Sequence[Trial]) -> str | None:
    """Return the best value that beats the default beyond its interval; None to stay with the default."""
    better = [trial for trial in trials if trial.minus_default.low > 0]
    if axis.spends or not better:
        return None
    return max(better, key=lambda trial: trial.accuracy.value).value


def _compare(
    value: str,
    results: Sequence[Examined],
    method: Measured,
    default: Measured,
    retentions: Sequence[float],
    weights: Floats,
) -> Trial:
    accuracy = _mean_macro(results, method, retentions, weights)
    accounts = [one.cells[cell_name(method, share)].account or {} for one in results for share in retentions]
    return Trial(
        value=value,
        accuracy=summarise(accuracy),
        minus_default=summarise(accuracy - _mean_macro(results, default, retentions, weights)),
        kept=float(np.mean([account["tokens_out"] / account["tokens_in"] for account in accounts])),
        macs=float(np.mean([account["macs"] for account in accounts])),
    )


def _mean_macro(results: Sequence[Examined], method: Measured, retentions: Sequence[float], weights: Floats) -> Floats:
    asked = asked_families(results)
    found = [macro(resample(results, asked, weights, cell_name(method, share))) for share in retentions]
    mean: Floats = np.mean(found, axis=0)
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--methods", default="metom,infomerge")
    parser.add_argument("--fields", help="settings to vary, separated by commas; all without it")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--retention", default=",".join(map(str, RETENTIONS)))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--out", type=Path, default=Path("bench/results/accuracy_tuning.json"))
    options = parser.parse_args()
    job = Job(
        cache=options.cache,
        split="val",
        methods=(),
        retentions=tuple(float(part) for part in options.retention.split(",")),
        weights=options.weights,
        device=options.device,
    )
    workers = options.jobs or default_workers(options.device)
    fields = options.fields.split(",") if options.fields else None
    records = read_records(options.out)
    for name in options.methods.split(","):
        method = MEASURED[name]
        records[name] = tune(method, job, options.clips, workers=workers, passes=options.passes, fields=fields)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(list(records.values()), indent=1) + "\n")
        show(records[name])


def read_records(file: Path) -> dict[str, dict[str, Any]]:
    """Read the records of a file, by method; those that are not varied again stay in it."""
    return {one["method"]: one for one in json.loads(file.read_text())} if file.exists() else {}


def show(record: Mapping[str, Any]) -> None:
    """Print the sensitivities of every pass."""
    for found in record["passes"]:
        print(f"{record['method']}: {100 * found['accuracy']['value']:.1f} % with {found['defaults']}")
        for axis in found["axes"]:
            for trial in axis["trials"]:
                less = trial["minus_default"]
                print(
                    f"  {axis['field'] + '=' + trial['value']:26} {100 * less['value']:+6.1f} "
                    f"({100 * less['low']:+.1f} to {100 * less['high']:+.1f}), {100 * trial['kept']:.1f} % kept, "
                    f"{trial['macs'] / 1e9:.2f} GMAC{' (spends)' if axis['spends'] else ''}"
                )
    print(f"{record['method']}: chosen are {record['chosen'] or 'the defaults'}", flush=True)


if __name__ == "__main__":
    main()
