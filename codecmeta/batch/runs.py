"""Runs over many inputs: fresh results are kept, other inputs go to an engine, every outcome to the manifest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from codecmeta.batch.engines import Engine
from codecmeta.batch.inputs import AbsolutePaths, Input
from codecmeta.batch.outcome import Outcome, Status
from codecmeta.batch.output_folder import STOPS, OutputFolder, open_output
from codecmeta.batch.packed_output import Packing
from codecmeta.batch.packers import open_packer
from codecmeta.batch.remote_output import open_remote_output
from codecmeta.batch.shard_jobs import ShardJob, WrittenShard, lost_shard, work_or_pack
from codecmeta.batch.shards import Shard
from codecmeta.batch.summary import Tally, encode_summary
from codecmeta.errors import OutputError, SourceCode, UsageError


class Work(Protocol):
    """Work on one input: a dataclass with the input, the file to write, and whether to do it in any case."""

    @property
    def source(self) -> str:
        """The input."""
        ...

    @property
    def meta(self) -> str:
        """The file."""
        ...

    @property
    def overwrite(self) -> bool:
        """Whether to do it even if the file exists."""
        ...


W = TypeVar("W", bound=Work)


def run_inputs(
    inputs: Iterable[Input],
    out: Path | str,
    *,
    plain: W,
    task: Callable[[W], Outcome],
    run: Mapping[str, Any],
    engine: Engine,
    shard: Shard | None = None,
    summary: bool = True,
    packing: Packing | None = None,
    report: Callable[[Outcome], None],
) -> dict[Status, int]:
    """Process all inputs, append the outcomes to `out/manifest.jsonl` and write `out/summary.json`.

    Args:
        inputs: the inputs; read when they are needed.
        out: the output folder, created if missing, or its URL.
        plain: the work without its input and file.
        task: function that does the work; all errors of an input are in its outcome.
        run: `options` and `versions` of this run, as JSON values.
        engine: engine that runs the work.
        shard: the part of the inputs to do, with a manifest and a summary of its own; None for all.
        summary: write the summary; for a run over a few of the inputs it would be misleading.
        packing: move the records into tar shards; None leaves each a file.
        report: called with every outcome.

    Returns:
        Numbers of videos that were done, kept and failed.

    Raises:
        UsageError: the folder holds results of other options, is out of the workers' reach, or packing needs pyarrow.
        OutputError: the output folder cannot be created or written, or the disk is full.
    """
    shard, tally = shard or Shard(), Tally()
    listing = _Listing(inputs, shard)
    prefix = os.path.join(out, "").removeprefix("./")  # noqa: PTH118 - of a million files
    with _open(out, run, plain, shard, engine) as folder, open_packer(folder, packing, engine) as packer:
        written = packer.staging or prefix  # where workers write

        def settle(outcome: Outcome, place: str | None) -> None:
            outcome = replace(outcome, meta=outcome.meta.replace(written, prefix, 1))
            tally.add_outcome(outcome)
            if packer.staging is None or outcome.status == "failed":
                folder.append(place, outcome)
            report(outcome)
            if outcome.code in STOPS.values():
                raise OutputError(None, outcome.message)
            packer.add(place or "", outcome)

        def jobs() -> Iterator[W | ShardJob]:
            for (source, place, state), path, clashes in listing:
                yield from packer.take_shards()
                meta = prefix + place
                if clashes:
                    settle(_clash(_job(plain, source, meta)), None)
                    continue
                folder.sweep(meta)
                if not plain.overwrite and (kept := folder.find_kept(source, path, meta, place, state=state)):
                    tally.add_outcome(kept)
                    report(kept)
                    packer.add(place, kept)
                else:
                    yield _job(plain, source, written + place)

        begin, ended = time.monotonic(), "interrupted"
        try:
            for result in engine.run(partial(work_or_pack, task), jobs(), failure=_lose):
                if isinstance(result, WrittenShard):
                    packer.settle(result)
                else:
                    settle(result, result.meta.removeprefix(written))
            ended = "complete"
        finally:
            # where the output cannot be written, the run has reported that already
            with suppress(OSError):
                facts = {"ended": ended, "listed": listing.count, "seconds": round(time.monotonic() - begin, 3), **run}
                if summary:
                    folder.write_summary(*encode_summary(shard, tally, facts))
    return tally.counts


class _Listing:
    """Inputs of a shard, each once.

    Attributes:
        count: number of inputs that were listed, those of other shards included.
    """

    def __init__(self, inputs: Iterable[Input], shard: Shard) -> None:
        self._inputs = inputs
        self._shard = shard
        self.count = 0

    def __iter__(self) -> Iterator[tuple[Input, str, bool]]:
        """Yield each input, its absolute path, and whether its place is that of another input."""
        # hashes, not names: a list of inputs may be millions long
        places: dict[int, int] = {}
        paths, shard = AbsolutePaths(), self._shard
        for item in self._inputs:
            self.count += 1
            if shard.has(item.place):
                path, key = paths.of(item.path), hash(item.place)
                before = places.get(key)
                if before is None:
                    places[key] = hash(path)
                    yield item, path, False
                elif before != hash(path):
                    yield item, path, True


def _open(
    out: Path | str, run: Mapping[str, Any], plain: Work, shard: Shard, engine: Engine
) -> AbstractContextManager[OutputFolder]:
    if isinstance(out, str) and out.startswith("memory://") and engine.reach != "process":
        raise UsageError("memory:// is in this process only: what workers write there is lost; use --jobs 0")
    if isinstance(out, str):
        return open_remote_output(out, run=run, overwrite=plain.overwrite, shard=shard)
    return open_output(out, run=run, overwrite=plain.overwrite, shard=shard)


def _job(plain: W, source: str, meta: str) -> W:
    # the protocol does not say that it is a dataclass
    job: W = replace(cast("Any", plain), source=source, meta=meta)
    return job


def _clash(job: Work) -> Outcome:
    message = f"{job.meta!r} is also the place of another input; use another --out for one of them"
    return failed_outcome(job, "output", message, 0.0)


def _lose(job: Work | ShardJob, code: SourceCode, message: str, seconds: float) -> Outcome | WrittenShard:
    if isinstance(job, ShardJob):
        return lost_shard(job, message)
    return failed_outcome(job, code, message, seconds)


def failed_outcome(job: Work, code: SourceCode, message: str, seconds: float) -> Outcome:
    """Return the outcome of an input that failed."""
    return Outcome(
        source=job.source, meta=job.meta, status="failed", code=code, message=message, seconds=round(seconds, 3)
    )
