"""One question to a model about many videos, over shortened tokens."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import codecmeta
from codecmeta import CodecMetaError, Outcome, UsageError, VideoMeta, extract_many
from compress.density import MapChoice
from compress.errors import CompressError, ConfigError, OutputError
from compress.models.inputs.prompt import Tokenizer, prepare
from compress.models.lookahead import look_ahead
from compress.profiling.timing import StageTimer
from compress.records import RecordSource, find_metas, load_record
from compress.video import blaming_the_video


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Outcome of one video; `to_json` is a line of `compress ask --json`.

    Attributes:
        video: path of the .npz below the input folder, without its suffix.
        status: done or failed.
        message: why it failed, what differs from what was requested, and what `extract` warned of.
        method: name of the method.
        retention: nominal retained fraction.
        frames: frames of tokens that the model saw.
        tokens_in: visual tokens of the prompt.
        tokens_out: those that entered the language model.
        budgets: tokens that left per frame, by the frame of their anchor.
        merges: patches before and after they merge before or inside the encoder (`patches_in`, `patches_encoded`),
            tokens after the merge inside the language model (`tokens_inside`), those that the last decoding step read
            (`tokens_read`).
        seconds: per stage.
        answer: the text.
        sources: signal -> where it came from.
    """

    video: str
    status: Literal["done", "failed"]
    message: str
    method: str
    retention: float
    frames: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    budgets: tuple[int, ...] = ()
    merges: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    answer: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return one line of ASCII, whatever the answer holds."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """A question to a model.

    Attributes:
        text: what to ask.
        model: the model to ask.
        tokenizer: of the model.
        compressor: what shortens the tokens.
        method: its name.
        retention: nominal.
        map: where the density of patches comes from.
        new_tokens: longest answer.
    """

    text: str
    model: Any
    tokenizer: Tokenizer
    compressor: Any
    method: str
    retention: float
    map: MapChoice = "auto"
    new_tokens: int = 128


def check_question(text: str) -> None:
    """Raise `ConfigError` where a question is empty."""
    if not text.strip():
        raise ConfigError(f"the question is {text!r}; write one")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """A video that is ready to be asked about, or the reason why it is not."""

    name: str
    meta: VideoMeta | None = None
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    warnings: tuple[str, ...] = ()


def answer_videos(
    meta: str | os.PathLike[str], question: Question, *, sources: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[Answer]:
    """Ask about every video, one after the other; one that fails does not stop the others.

    The next video is read and prepared while the model works on this one.

    Args:
        meta: a folder of .npz files, or of tar shards of them, or one file, shard or index.
        question: the question, and the model to ask.
        sources: videos to ask about, as `codecmeta.extract_many` takes them. What is missing or stale of their records
            in ``meta`` is extracted meanwhile by a worker process, and the model begins with the first that is there.

    Yields:
        An answer per video, in the order of their names, or of ``sources`` as they are ready.

    Raises:
        ConfigError: no .npz is found, or the method does not suit the model or the question the tokenizer.
        OutputError: records of videos cannot be written to ``meta``.
    """
    records = _extracted(sources, meta) if sources else _found(meta)

    def read_all(hand_over: Callable[[_Reading], None]) -> None:
        for record in records:
            hand_over(_prepare(record, question))

    for reading in look_ahead(read_all):
        message = reading.failure
        if not message:
            try:
                yield _answer(reading, question)
                continue
            except ConfigError:
                raise
            except Exception as error:
                message = _explain(error)
        yield Answer(
            video=reading.name,
            status="failed",
            message=" ".join(message.split()),
            method=question.method,
            retention=question.retention,
        )


@dataclass(frozen=True, kw_only=True)
class _Record:
    """The record of a video, or the reason why it has none."""

    name: str
    source: RecordSource
    seconds: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    warnings: tuple[str, ...] = ()


def _found(meta: str | os.PathLike[str]) -> Iterator[_Record]:
    return iter([_Record(name=name, source=source) for name, source in find_metas(meta)])


def _extracted(sources: Sequence[str | os.PathLike[str]], meta: str | os.PathLike[str]) -> Iterator[_Record]:
    """Extract the records of videos into a folder by one worker process, and yield them as they are written."""

    def extract_all(hand_over: Callable[[Outcome], None]) -> None:
        try:
            extract_many(sources, meta, jobs=1, report=hand_over)
        except UsageError as error:
            raise ConfigError(str(error)) from error
        except codecmeta.OutputError as error:
            raise OutputError(error.strerror or str(error)) from error

    for outcome in look_ahead(extract_all, waiting=0):
        path = Path(outcome.meta)
        yield _Record(
            name=os.path.relpath(path, meta).removesuffix(".npz") if outcome.meta else outcome.source,
            source=path,
            seconds={"extract": outcome.seconds},
            failure=outcome.message if outcome.status == "failed" else "",
            warnings=outcome.warnings,
        )


def _explain(error: Exception) -> str:
    """Return why a video failed; a bug must not stop the others."""
    if isinstance(error, CodecMetaError | CompressError | OSError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"out of memory: {error}"
    return f"internal error, please report it: {type(error).__name__}: {error}"


@torch.inference_mode()
def _prepare(record: _Record, question: Question) -> _Reading:
    """Load a record and prepare the model's inputs."""
    if record.failure:
        return _Reading(name=record.name, failure=record.failure)
    seconds = dict(record.seconds)
    try:
        start = time.perf_counter()
        meta = load_record(record.source)
        seconds["load"] = time.perf_counter() - start
        start = time.perf_counter()
        inputs = prepare(question.model, meta, question.text, tokenizer=question.tokenizer)
        seconds["prepare"] = time.perf_counter() - start
    except ConfigError:
        raise
    except Exception as error:
        return _Reading(name=record.name, failure=_explain(error))
    return _Reading(name=record.name, meta=meta, inputs=inputs, seconds=seconds, warnings=record.warnings)


@torch.inference_mode()
def _answer(reading: _Reading, question: Question) -> Answer:
    meta, inputs, seconds = reading.meta, reading.inputs, dict(reading.seconds)
    timer = StageTimer(inputs["input_ids"].device)
    with question.compressor.attach(question.model, meta, map=question.map) as session:
        session.timer = timer.stage
        with timer.watch(session.adapter):
            start = time.perf_counter()
            # too few tokens for the retention, for example, which does not concern the other videos
            with blaming_the_video():
                question.model.generate(**inputs, max_new_tokens=1, do_sample=False)
            stages = timer.read()
            seconds |= {**stages, "ttft": time.perf_counter() - start}
        start = time.perf_counter()
        output = question.model.generate(**inputs, max_new_tokens=question.new_tokens, do_sample=False)
        text = output[0, inputs["input_ids"].shape[1] :].tolist()
        seconds["answer"] = time.perf_counter() - start
        (result,) = session.results
        merges = {} if not session.inside else {"tokens_inside": session.inside[0].achieved}
        if session.decoding:
            merges["tokens_read"] = session.decoding[-1][0]
        inner_sources = session.inside[0].sources if session.inside else {}
        layers = getattr(session.compressor, "layers", None)
        depth = len(session.adapter.layers)
    if result.inside_encoder is not None:
        merges |= {"patches_in": len(result.inside_encoder.origin), "patches_encoded": len(result.inside_encoder.keep)}
    if result.before_encoder is not None:
        merges |= {"patches_in": result.before_encoder.plan.count_in, "patches_encoded": result.before_encoder.achieved}
    sources = {**result.sources, **inner_sources}
    if layers:
        sources["attention"] = f"layers {', '.join(map(str, layers))} of {depth}"
    rpm = result.sources.get("rpm", "")
    notes = (*reading.warnings, f"RPM {rpm}" if rpm.startswith("skipped") else "")
    return Answer(
        video=reading.name,
        status="done",
        message="; ".join(note for note in notes if note),
        method=question.method,
        retention=question.retention,
        frames=result.frames,
        tokens_in=result.tokens_in,
        tokens_out=result.tokens_out,
        budgets=() if result.before_llm is None else tuple(result.before_llm.frame_counts.tolist()),
        merges=merges,
        seconds={stage: round(value, 6) for stage, value in seconds.items()},
        answer=question.tokenizer.decode(text, skip_special_tokens=True),
        sources=sources,
    )
