"""Records that commands read, in files or in shards."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import pytest

from codecmeta.record.tar_shard import write_shard
from compress.comparison import Job as Comparison
from compress.comparison import compare
from compress.errors import CompressError, ConfigError
from compress.infomerge import InfoMerge
from compress.parallel_run import run_parallel
from compress.records import digest_record, find_metas, load_record
from compress.runner import Job, run
from tests.compress.test_runner import contents, make_meta

NAMES = ("a/two.mkv", "one")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two records as files, and in a shard, in whose names WebDataset allows no dots."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    (plain / "a").mkdir(parents=True)
    packed.mkdir()
    for number, name in enumerate(NAMES):
        make_meta(seed=number).save(plain / f"{name}.npz")
    records = [
        (f"{name}.npz", path.stat().st_size, partial(path.open, "rb"))
        for name in NAMES
        if (path := plain / f"{name}.npz")
    ]
    with write_shard(packed / "shard-000000.tar", records):
        pass
    return plain, packed


def job() -> Job:
    return Job(method=InfoMerge(retention=0.25), name="infomerge", retention=0.25)


def test_records_of_a_shard_are_those_of_files(folders: tuple[Path, Path]) -> None:
    files, packed = (dict(find_metas(folder)) for folder in folders)
    assert list(files) == ["a/two.mkv", "one"]
    assert list(packed) == ["a/two_mkv", "one"]
    for here, there in zip(packed.values(), files.values(), strict=True):
        assert digest_record(here) == digest_record(there)
        assert load_record(here).info == load_record(there).info
    assert list(dict(find_metas(folders[1] / "shard-000000.tar"))) == list(packed)


def test_a_file_next_to_shards_takes_precedence(folders: tuple[Path, Path]) -> None:
    """It waits for its shard, or was extracted again."""
    packed = folders[1]
    make_meta(seed=5).save(packed / "one.npz")
    make_meta(seed=6).save(packed / "third.npz")
    found = dict(find_metas(packed))
    assert list(found) == ["a/two_mkv", "one", "third"]
    assert found["one"] == packed / "one.npz"


def test_tokens_of_packed_records(folders: tuple[Path, Path], tmp_path: Path) -> None:
    plain, packed = (list(run(folder, tmp_path / f"{folder.name}-tokens", job())) for folder in folders)
    assert [one.status for one in packed] == ["done", "done"], [one.message for one in packed]
    assert [one.tokens_out for one in packed] == [one.tokens_out for one in plain]
    tokens, others = (
        [data for name, data in contents(tmp_path / f"{folder.name}-tokens").items() if name.endswith("safetensors")]
        for folder in folders
    )
    assert tokens == others
    again = list(run(folders[1], tmp_path / "packed-tokens", job()))
    assert [one.status for one in again] == ["kept", "kept"]


def test_workers_and_comparisons_take_packed_records(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from codecmeta.batch.engines import SerialEngine

    found = list(run_parallel(folders[1], tmp_path / "tokens", job(), SerialEngine()))
    assert [(one.video, one.status) for one in found] == [("a/two_mkv", "done"), ("one", "done")]
    compared = list(compare(folders[1], Comparison(methods=("stride",), retentions=(0.5,))))
    assert [cell.status for video in compared for cell in video.cells] == ["done", "done"]


def test_what_holds_no_record(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="nothing to do"):
        find_metas(tmp_path / "empty")
    (tmp_path / "empty" / "x.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_metas(tmp_path / "empty")
    with pytest.raises(CompressError, match="folder"), tempfile.TemporaryDirectory() as folder:
        digest_record(Path(folder))
