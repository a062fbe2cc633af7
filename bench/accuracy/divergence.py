"""Divergence and greedy agreement of every method next to its accuracy, on the same questions.

    python -m bench.accuracy.divergence ask --clips 20 --methods default,stage,published --retention 0.15,0.1,0.05 \\
        --kept seed0.answers --lines seed0.jsonl
    python -m bench.accuracy.divergence rank 0=seed0.answers 1=seed1.answers --out divergence.json

KL and agreement are those of `compress compare`: KL(full || shortened) in nats over the whole vocabulary at the first
word of the answer, from float32 logits, and whether the likeliest word is the same. `ask` goes on where a run with the
same ``--kept`` stopped, and writes ``--lines`` as `compress accuracy --out` does. `rank` prints the table of the
documentation; several files of one judge, separated by commas, hold other methods of the same clips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.stats import rankdata, spearmanr

from compress.accuracy.answering import Examinee, mark
from compress.accuracy.clips import Clip, default_cache, open_clip
from compress.accuracy.measure import FULL, Cell, Examined, Job, cell_name, describe
from compress.accuracy.methods import IDENTITY, MEASURED, Measured, choose
from compress.accuracy.questions import CHANCE
from compress.accuracy.results import asked_families, resample, tabulate
from compress.accuracy.statistics import correct_for_chance, draw_weights, macro, macro_chance
from compress.comparison.divergence import agree, kl_divergence
from compress.demo import load

Divergences = dict[str, dict[str, list[float]]]
"""By `cell_name`: KL and agreement of each question."""
BEFORE: Final = "tokens_out"
"""Methods whose retention is that of the tokens that enter the language model."""


def ask(examinee: Examinee, clip: Clip, job: Job) -> tuple[Examined, Divergences]:
    """Ask about a clip by every method at every retention, and compare the answers with those over all tokens."""
    sheet = examinee.write_sheet(clip.meta, clip.questions)
    memory = examinee.look(clip.meta)
    plain = examinee.answer_plain(sheet, memory)
    right, exact = mark(sheet, plain)
    cells = {FULL: Cell(right=right.astype(float).tolist(), exact=exact.astype(float).tolist(), account=None)}
    found: Divergences = {}
    for method, retention in job.cells:
        marks, divergences, accounts = [], [], []
        for draw in range(method.draws):
            compressor = method.build(retention, seed=clip.seed, draw=draw, occupied=clip.labels.occupied)
            logits, account = examinee.answer_compressed(sheet, memory, clip.meta, compressor, map=method.map)
            marks.append(mark(sheet, logits))
            divergences.append((kl_divergence(plain, logits), agree(plain, logits)))
            accounts.append(asdict(account))
        name = cell_name(method, retention)
        right, exact = np.mean(marks, axis=0)
        account_of = {key: float(np.mean([one[key] for one in accounts])) for key in accounts[0]}
        cells[name] = Cell(right=right.tolist(), exact=exact.tolist(), account=account_of)
        kl, agreement = np.mean(divergences, axis=0)
        found[name] = {"kl": kl.tolist(), "agree": agreement.tolist()}
    return Examined(seed=clip.seed, families=list(sheet.families), cells=cells), found


def read(file: Path) -> tuple[list[Examined], list[Divergences]]:
    """Read the clips that a run has asked about."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [Examined.from_json(json.dumps(one["examined"])) for one in lines], [one["divergences"] for one in lines]


def join(files: Sequence[Path]) -> tuple[list[Examined], list[Divergences]]:
    """Join runs by other methods over the same clips, as far as all have come."""
    runs = [read(file) for file in files]
    examined, divergences = runs[0]
    for others, more in runs[1:]:
        for one, other in zip(examined, others, strict=False):
            if (one.seed, one.families) != (other.seed, other.families):
                raise ValueError(f"clips {one.seed} and {other.seed} of the runs differ")
            one.cells.update(other.cells)
        divergences = [one | two for one, two in zip(divergences, more, strict=False)]
    return examined[: len(divergences)], divergences


def summarise(examined: Sequence[Examined], divergences: Sequence[Divergences]) -> list[dict[str, Any]]:
    """Return accuracy over guessing (macro), KL and agreement by method and retention."""
    asked, weights = asked_families(examined), draw_weights(len(examined))
    chance = np.array([CHANCE[name] for name in asked])
    full = resample(examined, asked, weights, FULL)
    chances, full_macro = macro_chance(full, chance), macro(full)
    rows = []
    for name in divergences[0]:
        method, _, share = name.partition("@")
        kl, agreement = (
            np.concatenate([one[name][key] for one in divergences]).astype(np.float64) for key in ("kl", "agree")
        )
        accuracy = macro(resample(examined, asked, weights, name))
        rows.append(
            {
                "method": method,
                "retention": float(share),
                "corrected": round(float(correct_for_chance(accuracy, chances, full_macro)[0]), 4),
                "kl_mean": round(float(kl.mean()), 5),
                "kl_median": round(float(np.median(kl)), 5),
                "kl_90": round(float(np.quantile(kl, 0.9)), 5),
                "agree": round(float(agreement.mean()), 4),
            }
        )
    return rows


def correlate(rows: Sequence[Mapping[str, Any]], retention: float, *, kept: str | None = None) -> dict[str, float]:
    """Return Spearman's correlation of the order by accuracy with that by KL and by agreement at a retention."""
    some = [row for row in rows if row["retention"] == retention and _counts(row["method"], kept)]
    accuracy = [row["corrected"] for row in some]
    sides = {"kl": [-row["kl_mean"] for row in some], "agree": [row["agree"] for row in some]}
    return {name: round(float(spearmanr(accuracy, one).statistic), 3) for name, one in sides.items()}


def _counts(name: str, kept: str | None) -> bool:
    return name != IDENTITY.name and (kept is None or MEASURED[name].kept == kept)


def tables(judges: Mapping[str, Sequence[Mapping[str, Any]]], retentions: Sequence[float]) -> list[str]:
    """Return a table per retention in Markdown: values and ranks, of all judges in a cell."""
    lines = []
    for retention in retentions:
        runs = [{row["method"]: row for row in rows if row["retention"] == retention} for rows in judges.values()]
        names = [name for name in runs[0] if _counts(name, None) and all(name in run for run in runs)]
        ranks = [
            {key: rankdata([sign * run[name][key] for name in names]) for key, sign in SIDES.items()} for run in runs
        ]
        order = np.argsort(np.mean([one["corrected"] for one in ranks], axis=0), kind="stable")
        lines += ["", f"| {100 * retention:g} % | accuracy over guessing | rank | KL, nats | rank | agree | rank |"]
        lines.append("|---" * 7 + "|")
        for place in order.tolist():
            cells = []
            for key, text in (("corrected", "{:.1%}"), ("kl_mean", "{:.3f}"), ("agree", "{:.1%}")):
                cells.append(" / ".join(text.format(run[names[place]][key]).replace("%", "") for run in runs))
                cells.append(" / ".join(f"{one[key][place]:g}" for one in ranks))
            lines.append(f"| `{names[place]}` | {' | '.join(cells)} |")
    return lines


SIDES: Final = {"corrected": -1, "kl_mean": 1, "agree": -1}
"""Columns that methods are ranked by, and the sign that puts the best first."""


def run_ask(options: argparse.Namespace) -> None:
    """Ask about clips that ``--kept`` does not hold, and write the lines of `compress accuracy`."""
    torch.set_num_threads(1)
    methods: tuple[Measured, ...] = choose(options.methods)
    shares = tuple(float(part) for part in options.retention.split(","))
    job = Job(cache=options.cache, split="test", methods=methods, retentions=shares, weights=options.weights)
    done = len(read(options.kept)[0])
    if done < options.clips:
        examinee = Examinee(*load(options.weights))
        for seed in range(done, options.clips):
            examined, divergences = ask(examinee, open_clip(options.cache, "test", seed), job)
            with options.kept.open("a") as file:
                file.write(json.dumps({"examined": asdict(examined), "divergences": divergences}) + "\n")
            print(f"{seed + 1} of {options.clips} clips", flush=True)
    results = read(options.kept)[0][: options.clips]
    rows = tabulate(job, results, describe(job, results))
    options.lines.write_text("".join(row.to_json() + "\n" for row in rows))


def run_rank(options: argparse.Namespace) -> None:
    """Write the results, and print tables and rank correlations."""
    record: dict[str, Any] = {"judges": {}, "spearman": {}}
    for run in options.runs:
        judge, _, files = run.partition("=")
        examined, divergences = join([Path(file) for file in files.split(",")])
        rows = summarise(examined, divergences)
        questions = sum(len(one.families) for one in examined)
        record["judges"][judge] = {"clips": len(examined), "questions": questions, "rows": rows}
        shares = sorted({row["retention"] for row in rows if row["method"] == "random"}, reverse=True)
        record["spearman"][judge] = {
            f"{share:g}": {"all": correlate(rows, share), "before the model": correlate(rows, share, kept=BEFORE)}
            for share in shares
        }
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    judges = {name: one["rows"] for name, one in record["judges"].items()}
    shares = [float(share) for share in record["spearman"][next(iter(judges))]]
    print("\n".join(tables(judges, shares)))
    print(json.dumps(record["spearman"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("--clips", type=int, default=20)
    asking.add_argument("--methods", default="default,stage,published")
    asking.add_argument("--retention", default="0.15,0.1,0.05")
    asking.add_argument("--weights", type=Path)
    asking.add_argument("--cache", type=Path, default=default_cache())
    asking.add_argument("--kept", type=Path, required=True)
    asking.add_argument("--lines", type=Path, required=True)
    asking.set_defaults(run=run_ask)
    ranking = commands.add_parser("rank")
    ranking.add_argument("runs", nargs="+", metavar="JUDGE=FILE[,FILE]")
    ranking.add_argument("--out", type=Path, required=True)
    ranking.set_defaults(run=run_rank)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
