"""Records that move into tar shards while a batch runs, whole after a run that ends anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

import codecmeta
from codecmeta.batch import shard_output
from codecmeta.batch.folder_status import find_unfinished, read_status
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.output_folder import open_output, read_run
from codecmeta.batch.packing import pack
from codecmeta.batch.verification import find_checks, verify_record
from codecmeta.errors import UsageError
from codecmeta.record.limits import Limits
from codecmeta.record.tar_shard import write_shard
from tests.scale.conftest import require

OPTIONS = codecmeta.Options(frames="uniform:2", residual="none", pixels=32)
SHARD = 55_000
"""Bytes of a shard, for three records."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Link two clips under eight names, one of them not UTF-8, next to a file that is no video."""
    require("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a").mkdir()
    for number in range(7):
        (folder / "a" / f"{number}.b.mp4").symlink_to(data / f"{'still' if number % 2 else 'event'}_h264.mp4")
    (folder / "\udcff.mp4").symlink_to(data / "still_h264.mp4")
    (folder / "bad.mp4").touch()
    return folder


@pytest.fixture(scope="module")
def plain(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Extract the same videos into files, as bytes by place."""
    meta = tmp_path_factory.mktemp("plain")
    codecmeta.extract_many(videos, meta, options=OPTIONS, jobs=0)
    return {path.relative_to(meta).as_posix(): path.read_bytes() for path in meta.rglob("*.npz")}


def extract(videos: Path, meta: Path, **options: Any) -> list[Outcome]:
    seen: list[Outcome] = []
    codecmeta.extract_many(
        videos, meta, options=OPTIONS, pack="tar", shard_bytes=SHARD, report=seen.append, **{"jobs": 0} | options
    )
    return seen


def rows(meta: Path) -> list[dict[str, Any]]:
    return list(require("pyarrow.parquet").read_table(meta / "index.parquet").to_pylist())


def packed(meta: Path) -> dict[str, bytes]:
    """Bytes of the records, by what the index says of them."""
    found = {}
    for row in rows(meta):
        content = (meta / row["shard"]).read_bytes()
        found[row["place"]] = content[row["offset"] : row["offset"] + row["bytes"]]
    return found


def spelled(records: dict[str, bytes]) -> dict[str, bytes]:
    """Parquet holds UTF-8: other bytes of a name are escaped in the index."""
    return {place.replace("\udcff", "\\xff"): content for place, content in records.items()}


@pytest.mark.parametrize("jobs", [0, 2])
def test_the_records_are_those_of_files(videos: Path, plain: dict[str, bytes], tmp_path: Path, jobs: int) -> None:
    seen = extract(videos, tmp_path, jobs=jobs)
    assert sorted(one.status for one in seen) == ["done"] * 8 + ["failed"]
    assert packed(tmp_path) == spelled(plain)
    assert not list(tmp_path.rglob("*.npz"))
    assert not (tmp_path / "a").exists()
    assert {row["shard"] for row in rows(tmp_path)} == {f"shard-{number:06d}.tar" for number in range(3)}
    assert {row["codec"] for row in rows(tmp_path)} == {"h264"}
    assert [len(codecmeta.open_dataset(path)) for path in (tmp_path, *sorted(tmp_path.glob("*.tar")))] == [8, 3, 3, 2]


def test_a_second_run_does_nothing(
    videos: Path, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(videos, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    # a record that is found is not even opened
    monkeypatch.setattr("codecmeta.batch.jobs.find_fresh", None)
    again = extract(videos, tmp_path)
    assert sorted(one.status for one in again) == ["failed"] + ["kept"] * 8
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")} == before
    assert packed(tmp_path) == spelled(plain)
    found = read_status(tmp_path)
    assert (found.done, found.failed, found.gone, found.missing) == (8, 1, 0, 0)


@pytest.mark.parametrize("renamed", [False, True], ids=["before its shard has its name", "before its files are gone"])
def test_a_run_that_is_killed(
    videos: Path, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: bool
) -> None:
    """The records of the second shard are in the manifest, and the run ends before or after the rename."""

    @contextmanager
    def write(path: Path, records: Sequence[Any]) -> Iterator[Any]:
        with write_shard(path, records) as locations:
            yield locations
            if path.name == "shard-000001.tar" and not renamed:
                raise KeyboardInterrupt
        if path.name == "shard-000001.tar":
            raise KeyboardInterrupt

    monkeypatch.setattr(shard_output, "write_shard", write)
    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path)
    assert len(list(tmp_path.glob("*.tar"))) == 1 + renamed
    assert list(tmp_path.rglob("*.npz"))
    assert read_status(tmp_path).gone == 0
    monkeypatch.undo()
    seen = extract(videos, tmp_path)
    assert sum(one.status == "kept" for one in seen) == 6
    assert packed(tmp_path) == spelled(plain)
    assert not list(tmp_path.rglob("*.npz"))
    assert read_status(tmp_path).done == 8


def test_a_shard_that_is_gone_or_another(videos: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    extract(videos, tmp_path)
    (tmp_path / "shard-000001.tar").write_bytes((tmp_path / "shard-000000.tar").read_bytes())
    assert read_status(tmp_path).gone == 3
    assert len(list(find_unfinished(tmp_path))) == 4
    seen = extract(videos, tmp_path)
    assert sorted(one.status for one in seen) == ["done"] * 3 + ["failed"] + ["kept"] * 5
    assert packed(tmp_path) == spelled(plain)
    assert "shard-000003.tar" in {row["shard"] for row in rows(tmp_path)}


def test_parts_share_an_index(videos: Path, plain: dict[str, bytes], tmp_path: Path) -> None:
    for part in ("0/2", "1/2"):
        extract(videos, tmp_path, shard=part)
    assert packed(tmp_path) == spelled(plain)
    assert {row["shard"][:13] for row in rows(tmp_path)} == {"shard-0-of-2-", "shard-1-of-2-"}
    # and any other division finds all of them
    assert sum(one.status == "kept" for one in extract(videos, tmp_path, shard="0/1")) == 8


def test_what_runs_on_packed_records(videos: Path, tmp_path: Path) -> None:
    """Verification, and packing into shards of another size."""
    extract(videos, tmp_path / "meta")
    checks = list(find_checks(tmp_path / "meta", videos=None, deep=False, limits=Limits()))
    findings = [verify_record(check) for check in checks]
    assert sorted((one.status, one.code) for one in findings) == [("failed", "no_record")] + [("sound", "")] * 8
    result = pack(tmp_path / "meta", tmp_path / "again")
    assert (result.records, result.shards) == (8, 1)
    assert packed(tmp_path / "again") == packed(tmp_path / "meta")


def test_runs_that_do_not_go_together(videos: Path, tmp_path: Path) -> None:
    extract(videos, tmp_path)
    with pytest.raises(UsageError, match="pack 'tar', now None"):
        codecmeta.extract_many(videos, tmp_path, options=OPTIONS, jobs=0)
    run = read_run(tmp_path)
    assert run is not None
    with (
        open_output(tmp_path, run=run, overwrite=False) as folder,
        folder.claim_packing(),
        pytest.raises(UsageError, match="another run packs part 0/1"),
    ):
        extract(videos, tmp_path)


def test_the_commands(videos: Path, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--frames", "uniform:2", "--residual", "none", "--pixels", "32"]
    command = ["extract", str(videos), *options, "--pack", "tar", "--shard-size", "0.000055", "--jobs", "0", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1, "one is no video"
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()].count("done") == 8
    assert len(rows(tmp_path)) == 8
    (tmp_path / "shard-000000.tar").unlink()
    result = CliRunner().invoke(app, ["retry", str(tmp_path), "--jobs", "0", "--json"])
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()].count("done") == 3
    assert len(rows(tmp_path)) == 8
    assert not list(tmp_path.rglob("*.npz"))
