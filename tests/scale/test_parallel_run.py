"""`compress run` on several workers: the same tokens as from one process, one model per worker, one GPU per worker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from codecmeta_cli.compress import app
from typer.testing import CliRunner

from codecmeta import VideoMeta
from codecmeta.batch.engines import Engine, LocalEngine
from codecmeta.batch.ray_engine import RayEngine
from codecmeta.errors import UsageError
from compress.density import MapChoice
from compress.errors import ConfigError
from compress.infomerge import InfoMerge
from compress.parallel_run import run_parallel
from compress.runner import Job, VideoReport, run
from compress.video import CompressedVideo, EmbeddedShortener, Stopwatch
from tests.compress.test_runner import make_meta
from tests.scale.conftest import NODE

VIDEOS = 6
MODULES = ("compress.parallel_run",)


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The embedded encoder, with a model that leaves a trace when it is loaded, and a video that it dies of."""

    place: str
    deadly: str = ""
    device: str = "cpu"
    inner: EmbeddedShortener = field(default_factory=EmbeddedShortener)

    @cached_property
    def model(self) -> str:
        with Path(self.place).open("a") as trace:
            trace.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
        return "model"

    def describe(self) -> dict[str, Any]:
        return self.inner.describe()

    def check(self, method: object, name: str) -> None:
        self.inner.check(method, name)

    def shorten(self, meta: VideoMeta, method: Any, *, map: MapChoice, stopwatch: Stopwatch) -> CompressedVideo:
        assert self.model
        if meta.info["source"]["name"] == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.shorten(meta, method, map=map, stopwatch=stopwatch)


@pytest.fixture(scope="module")
def gpus(ray_environment: Any) -> Iterator[None]:
    """Start a machine that has two GPUs, as far as Ray knows."""
    ray_environment.init("local", **(NODE | {"num_cpus": 2}), num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        yield
    finally:
        ray_environment.shutdown()


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meta")
    for number in range(VIDEOS):
        record = make_meta(seed=number)
        record.info["source"]["name"] = f"{number}.mp4"
        record.save(folder / f"{number}.mp4.npz")
    return folder


def make_engine(name: str) -> Engine:
    if name == "processes":
        return LocalEngine(workers=2, timeout=None, modules=MODULES)
    return RayEngine(workers=None, timeout=None, modules=MODULES, gpus=1)


def make_job(place: Path, *, deadly: str = "") -> Job:
    shortener = Traced(place=str(place), deadly=deadly)
    return Job(method=InfoMerge(retention=0.25), name="infomerge", retention=0.25, shortener=shortener)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("name", ["processes", "GPUs of Ray"])
def test_the_same_tokens_from_workers_that_load_once(
    name: str, meta: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name != "processes":
        request.getfixturevalue("gpus")
    alone = list(run(meta, tmp_path / "alone", make_job(tmp_path / "trace-alone")))
    assert len((tmp_path / "trace-alone").read_text().splitlines()) == 1
    job = make_job(tmp_path / "trace")
    found = list(run_parallel(meta, tmp_path / "many", job, make_engine(name), threads=1))
    assert {one.status for one in found} == {"done"}
    assert sorted(one.video for one in found) == [one.video for one in alone]
    assert outputs(tmp_path / "many") == outputs(tmp_path / "alone")
    assert len(outputs(tmp_path / "many")) == VIDEOS
    loads = [line.split() for line in (tmp_path / "trace").read_text().splitlines()]
    # a worker loads its model once, whatever number of videos it does
    assert len(loads) == len({load[0] for load in loads}) <= 2
    if name != "processes":
        assert {load[1] for load in loads} <= {"0", "1"}
        assert len({load[1] for load in loads}) == len(loads)
    again = list(run_parallel(meta, tmp_path / "many", job, make_engine(name)))
    assert [one.status for one in again] == ["kept"] * VIDEOS
    assert len((tmp_path / "trace").read_text().splitlines()) == len(loads), "nothing was loaded for that"
    (tmp_path / "many" / "3.mp4.safetensors").unlink()
    third = run_parallel(meta, tmp_path / "many", job, make_engine(name))
    assert sorted((one.status, one.video) for one in third)[0] == ("done", "3.mp4")


@pytest.mark.parametrize("name", ["processes", "GPUs of Ray"])
def test_a_worker_that_dies_costs_its_video(
    name: str, meta: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name != "processes":
        request.getfixturevalue("gpus")
    job = make_job(tmp_path / "trace", deadly="2.mp4")
    found: dict[str, VideoReport] = {
        one.video: one for one in run_parallel(meta, tmp_path / "out", job, make_engine(name))
    }
    assert {video for video, one in found.items() if one.status == "failed"} == {"2.mp4"}
    assert found["2.mp4"].message.startswith("crashed: ")
    assert len(outputs(tmp_path / "out")) == VIDEOS - 1


def test_an_error_of_all_videos_ends_the_run(meta: Path, tmp_path: Path) -> None:
    job = Job(method=InfoMerge(retention=0.25), name="infomerge", retention=0.25, map="bits")
    with pytest.raises(ConfigError, match="nothing to do"):
        list(run_parallel(tmp_path, tmp_path / "out", job, make_engine("processes")))


@pytest.mark.usefixtures("gpus")
def test_a_gpu_per_worker_at_most(meta: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer GPUs"):
        list(RayEngine(workers=None, timeout=None, gpus=3).run(len, ["a"], failure=lambda *_: -1))


def test_the_command(meta: Path, tmp_path: Path) -> None:
    command = ["run", "--meta", str(meta), "--out", str(tmp_path), "--method", "infomerge", "--json"]
    for expected in ("done", "kept"):
        result = CliRunner().invoke(app, [*command, "--jobs", "1"])
        assert result.exit_code == 0, result.output
        assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == [expected] * VIDEOS
    assert CliRunner().invoke(app, [*command, "--engine", "ray", "--jobs", "0"]).exit_code == 2
