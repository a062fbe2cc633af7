"""Comparison of methods on a user's own videos: every method at every retention, on every video."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from codecmeta import CodecMetaError, VideoMeta
from compress.comparison.cell import ANOTHER, EVERYTHING, Cell
from compress.comparison.coverage import Marks, cover, cover_marked, cover_time, mark_moving, mark_residual
from compress.comparison.divergence import agree, kl_divergence
from compress.comparison.pictures import Pictures
from compress.comparison.reconstruction import Reconstruction, reconstruct
from compress.comparison.view import EmbeddedView, ModelView, View
from compress.comparison.watched import Log, Watched
from compress.density import MapChoice
from compress.errors import CompressError, ConfigError
from compress.methods import METHODS, build, find
from compress.plan import MergePlan
from compress.records import RecordSource, find_metas, load_record
from compress.video import check_device

if TYPE_CHECKING:
    from compress.comparison.interview import Interview, Logits


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model with what it is asked.

    Attributes:
        model: a supported model.
        tokenizer: its own.
        name: as the user gave it.
        prompt: what to ask; None for the demo model, which is asked each clip's own questions.
    """

    model: Any
    tokenizer: Any
    name: str
    prompt: str | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is compared.

    Attributes:
        methods: names, see `choose_methods`.
        retentions: nominal retained fractions.
        asked: the model; None to compare without one.
        map: by what the density of patches is measured.
        device: where the embedded encoder computes.
        repeats: calls of which the median time counts.
    """

    methods: tuple[str, ...]
    retentions: tuple[float, ...]
    asked: Asked | None = None
    map: MapChoice = "auto"
    device: str = "cpu"
    repeats: int = 3

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.repeats < 1:
            raise ConfigError(f"repeats is {self.repeats}; at least 1 call is needed to be timed")


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoComparison:
    """All figures of one video.

    Attributes:
        video: its name.
        cells: of every method at every retention, and the controls.
        pictures: which tokens each of them kept; None where nothing was compared.
    """

    video: str
    cells: tuple[Cell, ...]
    pictures: Pictures | None = None


def choose_methods(text: str, *, asked: bool) -> tuple[tuple[str, ...], tuple[Cell, ...]]:
    """List methods by name, separated by commas, or `all`.

    Args:
        text: names or `all`.
        asked: whether there is a model.

    Returns:
        The methods that can be compared, and a line for each of `all` that cannot, with the reason.

    Raises:
        ConfigError: a name is unknown, or that of a method that cannot be compared.
    """
    names = [part.strip() for part in text.split(",")]
    everything = "all" in names
    chosen = list(METHODS) if everything else list(dict.fromkeys(names))
    reasons = {name: reason for name in chosen if (reason := _reason_against(name, asked=asked))}
    if reasons and not everything:
        raise ConfigError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    omitted = tuple(Cell(video=None, status="omitted", method=name, message=text) for name, text in reasons.items())
    return tuple(name for name in chosen if name not in reasons), omitted


def _reason_against(name: str, *, asked: bool) -> str | None:
    stages = find(name).stages
    if not asked and "before_llm" not in stages:
        return "it works inside a model only; give --model and a prompt"
    if set(stages) == {"at_decoding"}:
        return "it begins after the first word of an answer, which is what is compared"
    return None


def compare(
    meta: str | os.PathLike[str], job: Job, *, progress: Callable[[int], None] | None = None
) -> Iterator[VideoComparison]:
    """Compare methods on every video; a video or a method that fails does not stop the others.

    Args:
        meta: a folder of .npz files, or of tar shards of them, or one file, shard or index.
        job: what is compared.
        progress: called with the number of methods and retentions that are done.

    Yields:
        The figures of a video, in the order of their names.

    Raises:
        ConfigError: there is no .npz.
    """
    found = find_metas(meta)
    done = 0
    for number, (name, source) in enumerate(found):
        other = found[(number + 1) % len(found)][1] if len(found) > 1 else None
        try:
            record = load_record(source)
            view = _open(record, name, job)
            marks = {"moving": mark_moving(record, view.place), "residual": mark_residual(record, view.place)}
            pictures = Pictures.of(record, view.place)
        except Exception as error:
            yield VideoComparison(video=name, cells=(Cell(video=name, status="failed", message=describe(error)),))
            done += len(job.methods) * len(job.retentions)
            if progress is not None:
                progress(done)
            continue
        cells = list(_controls(view, name, other)) if isinstance(view, ModelView) else []
        for method in job.methods:
            for retention in job.retentions:
                cell, plan = _measure(view, name, method, retention, marks, job)
                cells.append(cell)
                if plan is not None:
                    pictures.add(method, retention, plan)
                done += 1
                if progress is not None:
                    progress(done)
        yield VideoComparison(video=name, cells=tuple(cells), pictures=pictures)


def describe(error: Exception) -> str:
    """Return why something failed, in one line."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        text = f"out of memory: {error}"
    elif isinstance(error, OSError | CodecMetaError | CompressError):
        text = str(error)
    else:  # a bug must not stop the others
        text = f"internal error, please report it: {type(error).__name__}: {error}"
    return " ".join(text.split())


def _open(record: VideoMeta, name: str, job: Job) -> View:
    if job.asked is None:
        return EmbeddedView(record, map=job.map, device=job.device)
    from compress.models.adapters.adapter import adapt

    return ModelView(_interview(record, name, job.asked, job.map), adapt(job.asked.model))


def _interview(record: VideoMeta, name: str, asked: Asked, map: MapChoice) -> Interview:
    from compress.comparison.interview import ClipInterview, PromptInterview
    from compress.models.opening import DEMO

    if asked.name != DEMO:
        return PromptInterview(asked.model, asked.tokenizer, asked.prompt or "", record, map)
    from compress.accuracy.answering import Examinee
    from compress.accuracy.recognition import own_questions

    questions = own_questions(record, name)
    if asked.prompt is not None:
        given = " ".join(asked.prompt.split())
        questions = tuple(one for one in questions if one.text == given)
        if not questions:
            raise CompressError(f"{given!r} is not a question about {name}; without --prompt its own ones are asked")
    return ClipInterview(Examinee(asked.model, asked.tokenizer), questions, record, map)


def _controls(view: ModelView, name: str, another: RecordSource | None) -> Iterator[Cell]:
    """Measure all tokens through the hooks, whose divergence must be 0, and another video in place of this one."""
    count = len(view.tokens)
    whole = Cell(video=name, status="done", method=EVERYTHING, retention=1.0, tokens_in=count, tokens_out=count,
                 tokens_inner=count)  # fmt: skip
    plain = view.interview.plain
    yield replace(whole, **_compare_answers(plain, view.everything))
    other = Cell(video=name, status="done", method=ANOTHER, retention=1.0, tokens_in=count)
    if another is None:
        yield replace(other, status="omitted", message="this control needs a second video")
        return
    try:
        yield replace(other, **_compare_answers(plain, view.interview.ask_about(load_record(another))))
    except Exception as error:
        yield replace(other, status="failed", message=describe(error))


def _measure(
    view: View, video: str, name: str, retention: float, marks: dict[str, Marks], job: Job
) -> tuple[Cell, MergePlan | None]:
    """Return the figures of a method, and the plan by which its tokens are drawn; None where it failed."""
    cell = Cell(video=video, status="done", method=name, retention=retention)
    try:
        neutral = METHODS[name].neutral if retention == 1 else {}
        watched = Watched(build(name, retention=retention, settings=neutral), repeats=job.repeats)
        left = view.shorten(watched, name)
        log = watched.log
        plans = log.plans
        figures = [_figures(view, log, plan, marks) for plan in plans]
    except Exception as error:
        return replace(cell, status="failed", message=describe(error)), None
    answers = {} if left.logits is None or left.full is None else _compare_answers(left.full, left.logits)
    averages: dict[str, Any] = {key: _mean([one[key] for one in figures]) for key in figures[0]}
    cell = replace(
        cell,
        message="; ".join(left.notes),
        tokens_in=len(view.tokens),
        tokens_inner=float(np.mean([plan.count_out for plan in plans])),
        patches=log.patches,
        seconds=log.spent,
        macs_full=float(view.language_model.prefill(len(view.tokens))),
        sources={**left.sources, **{name: one.source for name, one in marks.items()}},
        **_account(view, log),
        **averages,
        **answers,
    )
    return cell, plans[0]


def _account(view: View, log: Log) -> dict[str, Any]:
    """Return frames, tokens that enter the language model, and operations layer by layer."""
    assert log.compression is not None and log.tokens is not None  # the method ran
    entering = log.compression.achieved
    counts = [entering, *(log.inside[cut][0].achieved for cut in sorted(log.inside))]
    bounds = [0, *log.cut_layers[: len(counts) - 1], view.language_model.layers]
    layers = np.diff(bounds).tolist()
    macs = sum(number * view.language_model.layer(count) for number, count in zip(layers, counts, strict=True))
    return {"frames": log.tokens.shape[0], "tokens_out": entering, "macs": float(macs)}


def _figures(view: View, log: Log, plan: MergePlan, marks: dict[str, Marks]) -> dict[str, Any]:
    assert log.tokens is not None  # the method ran
    kept = plan.apply(log.tokens.flatten(0, 1))
    found: Reconstruction = reconstruct(view.tokens.cpu(), kept.cpu(), plan.assign.cpu())
    covered = cover(plan)
    share, gap = cover_time(covered, log.tokens.shape[0])
    return {
        "assignment_error": found.assignment,
        "local_error": found.local,
        "linear_error": found.linear,
        "moving_coverage": cover_marked(covered, marks["moving"]),
        "residual_coverage": cover_marked(covered, marks["residual"]),
        "temporal_coverage": share,
        "longest_gap": gap,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return None if not known else known[0] if len(set(known)) == 1 else float(np.mean(known))


def _compare_answers(full: Logits, shortened: Logits) -> dict[str, Any]:
    kl = tuple(kl_divergence(full, shortened).tolist())
    return {"kl": kl, "agreement": float(agree(full, shortened).mean())}
