"""A batch run in this process, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.inputs import Input
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.outcome import Outcome
from codecmeta.record.options import Options

LIGHT = Options(frames="uniform:2", pixels=None, maps=("innovation",))


def inputs(folder: Path) -> Iterator[Input]:
    for path in sorted(folder.iterdir()):
        yield Input(path=str(path), place=path.name + ".npz")


def run(videos: Path, out: Path, **options: object) -> tuple[dict[str, int], list[Outcome]]:
    seen: list[Outcome] = []
    arguments = {"options": LIGHT, "engine": SerialEngine(), **options}
    counts = extract_inputs(inputs(videos), out, report=seen.append, **arguments)
    return dict(counts), seen
