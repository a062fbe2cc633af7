"""Where evidence is lost: every stage and part of a method against random tokens and stride, by family, with pictures.

    python -m bench.accuracy.losses --clips 90 --retention 0.3,0.1 --out bench/results/accuracy_losses.json \\
        --pictures 4 --folder pictures [--weights EXPORT]

The table has the paired difference of accuracy to `random` and to `stride` per family with its interval. Pictures show
clips of which a method answers a question wrongly and stride rightly: tokens that are kept are clear, merged ones
faded, and the cells of what was asked about are outlined. `rpm` counts patches, not tokens: the tower sees fewer of
them, and all tokens enter the language model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from compress.accuracy.answering import Examinee
from compress.accuracy.clips import Clip, default_cache, open_clip
from compress.accuracy.drawing import KINDS
from compress.accuracy.measure import Examined, Job, cell_name, describe, measure
from compress.accuracy.methods import MEASURED, choose
from compress.accuracy.questions import Question
from compress.accuracy.results import asked_families, resample
from compress.accuracy.statistics import draw_weights, macro, summarise
from compress.accuracy.tower import with_memory
from compress.demo import load

AGAINST: Final = ("random", "stride")
METHODS: Final = "rpm,btm,matm,metom,infomerge,infomerge-no-tfd,infomerge-no-uniqueness,infomerge-no-richness"
NAMED: Final = {"digit": "digit", "place": "digit"}
"""Kind of the cells that answer a question whose words do not name it."""
FADED: Final = 0.75


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A question that one method loses and another answers.

    Attributes:
        seed: of the clip.
        question: its number.
        method: that answers wrongly.
        retention: at which.
    """

    seed: int
    question: int
    method: str
    retention: float


def compare(results: Sequence[Examined], methods: Sequence[str], retentions: Sequence[float]) -> dict[str, Any]:
    """Differences by retention, method, and method that it is compared with: per family and of their mean."""
    asked = asked_families(results)
    weights = draw_weights(len(results))
    table: dict[str, Any] = {}
    for share in retentions:
        found = {name: resample(results, asked, weights, f"{name}@{share:g}") for name in (*methods, *AGAINST)}
        for name in methods:
            row = table.setdefault(f"{share:g}", {}).setdefault(name, {})
            for other in AGAINST:
                less = found[name] - found[other]
                row[other] = {family: asdict(summarise(less[:, n])) for n, family in enumerate(asked)}
                row[other]["macro"] = asdict(summarise(macro(found[name]) - macro(found[other])))
    return table


def find_lost(results: Sequence[Examined], methods: Sequence[str], retention: float) -> Iterator[Lost]:
    """Questions that stride answers and a method does not."""
    for one in results:
        kept = one.cells[cell_name(MEASURED["stride"], retention)].right
        for name in methods:
            right = one.cells[cell_name(MEASURED[name], retention)].right
            for number, (mine, other) in enumerate(zip(right, kept, strict=True)):
                if mine < 0.5 <= other:
                    yield Lost(seed=one.seed, question=number, method=name, retention=retention)


def show_evidence(clip: Clip, question: Question) -> NDArray[np.bool_]:
    """bool (T, 7, 7): cells that hold what a question asks about; none for backgrounds."""
    names = {NAMED.get(question.family, "")} | {*question.text.split()}
    if question.family == "event":
        names = {question.answer}
    wanted = [number for number, kind in enumerate(KINDS) if kind in names]
    return np.isin(clip.labels.kind, wanted)


@torch.inference_mode()
def keep_cells(examinee: Examinee, clip: Clip, method: str, retention: float) -> NDArray[np.bool_]:
    """bool (T, 7, 7): tokens that enter the language model, by the place of their anchors."""
    measured = MEASURED[method]
    compressor = measured.build(retention, seed=clip.seed, draw=0, occupied=clip.labels.occupied)
    memory = examinee.look(clip.meta)
    sheet = examinee.write_sheet(clip.meta, clip.questions)
    attached = with_memory(compressor.attach(examinee.model, clip.meta, map=measured.map), memory)
    ids = torch.tensor([[*sheet.video, *sheet.texts[0]]])
    with attached as session:
        examinee.model(input_ids=ids, pixel_values_videos=memory.pixels, use_cache=False, logits_to_keep=1)
        compression = session.results[0].before_llm
    kept = np.zeros(clip.labels.kind.size, bool)
    kept[:] = compression is None
    if compression is not None:
        anchors = compression.plan.keep.cpu().numpy()
        kept[anchors[anchors < kept.size]] = True
    return kept.reshape(clip.labels.kind.shape)


def draw(clip: Clip, question: Question, rows: dict[str, NDArray[np.bool_]], file: Path) -> None:
    """Write a picture: a row of frames per method, with what each keeps."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    assert clip.meta.frames is not None
    frames, evidence = clip.meta.frames, show_evidence(clip, question)
    count, height, width = frames.shape[:3]
    figure = Figure(figsize=(count * 0.95 + 1.2, len(rows) + 0.5), dpi=80)
    figure.suptitle(f"{clip.name}: {question.text} {question.answer}", fontsize=10)
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, kept) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(f"{name}\n{int((kept & evidence).sum())} of {int(evidence.sum())}", fontsize=7)
        for at, ax in enumerate(line):
            side = kept.shape[1]
            shown = kept[at].repeat(-(-height // side), 0).repeat(-(-width // side), 1)[:height, :width, None]
            picture = frames[at].astype(float)
            ax.imshow(np.where(shown, picture, FADED * 255 + (1 - FADED) * picture).astype(np.uint8))
            for r, c in np.argwhere(evidence[at]):
                ax.add_patch(Rectangle((c * width / side, r * height / side), width / side, height / side, fill=False,
                                       edgecolor="red", linewidth=0.8))  # fmt: skip
            ax.set_xticks([])
            ax.set_yticks([])
    figure.tight_layout(rect=(0, 0, 1, 0.97), pad=0.2)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def show(table: dict[str, Any]) -> None:
    """Print the table."""
    for share, methods in table.items():
        for name, row in methods.items():
            for other, cells in row.items():
                text = "  ".join(f"{family} {100 * one['value']:+.1f}{'*' if one['low'] > 0 or one['high'] < 0 else ''}"
                                 for family, one in cells.items())  # fmt: skip
                print(f"{100 * float(share):g} % {name:24} - {other:7} {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=90)
    parser.add_argument("--split", default="test", choices=["val", "test"])
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--retention", default="0.3,0.1")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--pictures", type=int, default=0, help="of lost questions, at most one per method and family")
    parser.add_argument("--folder", type=Path, default=Path("pictures"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    methods = choose(f"{options.methods},{','.join(AGAINST)}")
    names = [one.name for one in methods if one.name not in AGAINST]
    retentions = tuple(float(part) for part in options.retention.split(","))
    job = Job(cache=options.cache, split=options.split, methods=methods, retentions=retentions, weights=options.weights)
    results = measure(job, options.clips)
    table = compare(results, names, retentions)
    show(table)
    if options.out is not None:
        options.out.write_text(json.dumps({"about": describe(job, results), "differences": table}) + "\n")
    if options.pictures:
        examinee = Examinee(*load(options.weights))
        drawn: set[tuple[str, str]] = set()
        for lost in find_lost(results, [name for name in names if name in ("btm", "metom", "infomerge")],
                              min(retentions)):  # fmt: skip
            clip = open_clip(options.cache, job.split, lost.seed)
            question = clip.questions[lost.question]
            key = (lost.method, question.family)
            if key in drawn or len(drawn) >= options.pictures:
                continue
            drawn.add(key)
            rows = {name: keep_cells(examinee, clip, name, lost.retention) for name in (lost.method, *AGAINST)}
            draw(clip, question, rows, options.folder / f"{lost.method}-{question.family}-{lost.seed:06d}.png")


if __name__ == "__main__":
    main()
