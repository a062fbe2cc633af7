"""Records by URL: packed while a run goes on and afterwards, read again alone or by columns, shown and verified."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner, Result

import codecmeta
from bench.web_server import serve
from codecmeta.batch.engines import SerialEngine
from codecmeta.batch.inputs import find_inputs
from codecmeta.batch.jobs import extract_inputs
from codecmeta.batch.packed_output import Packing
from codecmeta.batch.packing import pack
from codecmeta.batch.shard_jobs import ShardJob
from codecmeta.batch.verification import find_checks, verify_record
from codecmeta.errors import ConflictError, MetaFormatError, SourceError, UsageError
from codecmeta.record.limits import Limits
from codecmeta.storage.objects import read_object, set_object, stat_object, write_object
from codecmeta.storage.stores import open_store
from tests.scale.conftest import one_machine, require

pytestmark = pytest.mark.filterwarnings("ignore")
OPTIONS = codecmeta.Options(frames="uniform:2", residual="none", pixels=32)
SHARD = 55_000
"""Bytes of a shard, for three records."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Link two clips under seven names, next to a file that is no video."""
    require("pyarrow.parquet")
    require("fsspec")
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a").mkdir()
    for number in range(7):
        (folder / "a" / f"{number}.b.mp4").symlink_to(data / f"{'still' if number % 2 else 'event'}_h264.mp4")
    (folder / "bad.mp4").touch()
    return folder


@pytest.fixture(scope="module")
def plain(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Extract them into files."""
    meta = tmp_path_factory.mktemp("plain")
    codecmeta.extract_many(videos, meta, options=OPTIONS, jobs=0)
    return meta


def extract(videos: Path, out: str, **options: Any) -> list[codecmeta.Outcome]:
    seen: list[codecmeta.Outcome] = []
    named: dict[str, Any] = {"options": OPTIONS, "jobs": 0, "shard_bytes": SHARD, "report": seen.append} | options
    codecmeta.extract_many(videos, out, pack="tar", **named)
    return seen


def names(url: str) -> list[str]:
    store, key = open_store(url)
    return [one.key[len(key) + 1 :] for one in store.list(f"{key}/")]


def same_records(dataset: codecmeta.MetaDataset, plain: Path) -> bool:
    """Compare records with those of files, by the name and the frames of each."""
    expected = [codecmeta.load(plain / "a" / f"{number}.b.mp4.npz") for number in range(7)]
    assert len(dataset) == 7
    for here, there in zip(sorted(dataset, key=lambda one: one.info["source"]["name"]), expected, strict=True):
        assert here.info == there.info
        assert here.frames is not None
        assert np.array_equal(here.frames, there.frames)
    return True


def command(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_run_that_packs_below_a_url(folder: str, videos: Path, plain: Path) -> None:
    seen = extract(videos, folder)
    assert sorted(one.status for one in seen) == ["done"] * 7 + ["failed"]
    assert {one.meta for one in seen} == {f"{folder}/a/{number}.b.mp4.npz" for number in range(7)} | {
        f"{folder}/bad.mp4.npz"
    }
    there = names(folder)
    assert [name for name in there if not name.startswith("manifest")] == [
        "index.parquet",
        "run.json",
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
        "summary.json",
    ]
    assert same_records(codecmeta.open_dataset(folder), plain)
    assert same_records(codecmeta.open_dataset(f"{folder}/index.parquet"), plain)
    status = json.loads(command("status", folder, "--json").stdout)
    assert [status[name] for name in ("done", "failed", "missing", "gone")] == [7, 1, 0, 0]
    # once more: nothing is done again, and nothing is written but the failure and the summary
    again = extract(videos, folder)
    assert sorted(one.status for one in again) == ["failed"] + ["kept"] * 7
    assert [name for name in names(folder) if name.endswith(".tar")] == [
        "shard-000000.tar",
        "shard-000001.tar",
        "shard-000002.tar",
    ]
    checks = find_checks(Path("unused"), videos=None, deep=False, limits=Limits())
    with pytest.raises(UsageError):
        list(checks)
    verified = command("verify", folder, "--jobs", "0", "--json")
    findings = [json.loads(line) for line in verified.stdout.splitlines()]
    assert sorted(one["status"] for one in findings) == ["failed"] + ["sound"] * 7
    assert verified.exit_code == 1


def test_shards_that_are_gone_are_made_again(folder: str, videos: Path, plain: Path) -> None:
    extract(videos, folder)
    store, key = open_store(f"{folder}/shard-000001.tar")
    store.replace_if(key, b"something else", store.stat(key).version)
    status = json.loads(command("status", folder, "--json").stdout)
    assert (status["done"], status["gone"]) == (4, 3)
    seen = extract(videos, folder)
    assert sorted(one.status for one in seen) == ["done"] * 3 + ["failed"] + ["kept"] * 4
    assert same_records(codecmeta.open_dataset(folder), plain)


def test_a_run_that_ends_before_its_manifest_is_written(
    folder: str, videos: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that no manifest names stays unread, and its records are made again."""
    from codecmeta.batch.remote_output import RemoteOutput

    def fail(self: RemoteOutput) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RemoteOutput, "flush", fail)
        with pytest.raises(KeyboardInterrupt):
            extract(videos, folder)
    assert "shard-000000.tar" in names(folder)
    assert [one.status for one in extract(videos, folder)].count("done") == 7
    assert "shard-000003.tar" in names(folder)
    assert same_records(codecmeta.open_dataset(folder), plain)


def test_a_run_that_is_interrupted_writes_what_waits(folder: str, videos: Path, plain: Path) -> None:
    seen: list[codecmeta.Outcome] = []

    def report(outcome: codecmeta.Outcome) -> None:
        seen.append(outcome)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(videos, folder, shard_bytes=1 << 30, report=report)
    done = [one.meta for one in seen[:2] if one.status == "done"]
    assert done
    again = extract(videos, folder, shard_bytes=1 << 30)
    assert {one.meta for one in again if one.status == "kept"} == set(done)
    assert same_records(codecmeta.open_dataset(folder), plain)


def test_two_writers_of_one_shard(folder: str, videos: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that comes second takes the next number, and replaces nothing."""
    from codecmeta.batch import remote_packing

    monkeypatch.setattr(remote_packing, "next_number", lambda pattern, output: 0)
    other = f"{folder}/shard-000000.tar"
    set_object(other, b"of another run")
    extract(videos, folder)
    assert read_object(other, most_bytes=100) == b"of another run"
    assert {f"shard-00000{number}.tar" for number in range(4)} < set(names(folder))
    assert same_records(codecmeta.open_dataset(folder), plain)


def test_nothing_stays_in_the_temporary_folder(
    folder: str, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    extract(videos, folder)
    assert list(tmp_path.iterdir()) == []


def test_packing_from_and_to_urls(folder: str, videos: Path, plain: Path, tmp_path: Path) -> None:
    """The shards and the index are the same bytes, wherever they come from and go to."""
    expected = pack(plain, tmp_path / "local", shard_bytes=SHARD)
    assert (expected.records, expected.shards, expected.left) == (7, 3, 0)
    assert expected.bytes == sum(path.stat().st_size for path in (tmp_path / "local").glob("*.tar"))
    codecmeta.extract_many(videos, f"{folder}/files", options=OPTIONS, jobs=0)
    extract(videos, f"{folder}/packed")
    for number, (source, out) in enumerate(
        [
            (str(plain), f"{folder}/1"),
            (f"{folder}/files", f"{folder}/2"),
            (f"{folder}/packed", f"{folder}/3"),
            (f"{folder}/files", str(tmp_path / "4")),
        ]
    ):
        assert pack(source, out, shard_bytes=SHARD) == expected, number
        for name in ("shard-000000.tar", "shard-000001.tar", "shard-000002.tar"):
            written = read_object(f"{out}/{name}", most_bytes=1 << 24) if "://" in out else Path(out, name).read_bytes()
            assert written == (tmp_path / "local" / name).read_bytes(), (number, name)
        assert same_records(codecmeta.open_dataset(out), plain)
    with pytest.raises(UsageError, match="holds shards already"):
        pack(plain, f"{folder}/1")
    with pytest.raises(UsageError, match="holds no record"):
        pack(f"{folder}/nothing", f"{folder}/5")
    with pytest.raises(ConflictError):
        write_object(f"{folder}/1/shard-000000.tar", b"", None)


def test_buckets_that_are_not_there(s3: str, plain: Path) -> None:
    """The message names the side that is wrong, once."""
    there, gone = f"{s3}/here", "s3://no-such-bucket-here/meta"
    codecmeta.load(plain / "a" / "0.b.mp4.npz").save(f"{there}/a.npz")
    for arguments, code in (
        (("pack", str(plain), "--out", gone), 3),
        (("pack", gone, "--out", f"{s3}/p"), 2),
        (("verify", gone), 2),
        (("status", gone), 2),
        (("retry", gone), 2),
        (("extract", str(plain), "--out", gone, "--pack", "tar"), 2),
    ):
        refused = command(*arguments)
        assert refused.exit_code == code, arguments
        assert refused.stderr.count(f"folder {gone}") == (arguments[0] != "extract"), refused.stderr


def test_commands_about_one_record(folder: str, plain: Path, tmp_path: Path) -> None:
    url = f"{folder}/clip.npz"
    codecmeta.load(plain / "a" / "0.b.mp4.npz").save(url)
    shown = command("show", url)
    assert shown.exit_code == 0
    assert url in shown.stdout.replace("\n", "")
    assert json.loads(command("show", url, "--json").stdout)["stream"]["codec"] == "h264"
    require("matplotlib")
    assert command("plot", url, "--out", str(tmp_path / "clip.png")).exit_code == 0
    assert (tmp_path / "clip.png").stat().st_size > 10_000
    for arguments in (("show", f"{folder}/gone.npz"), ("plot", f"{folder}/gone.npz", "--out", "x.png")):
        refused = command(*arguments)
        assert refused.exit_code == 1
        assert "gone.npz" in refused.stderr
    assert command("show", "ftp://host/clip.npz").exit_code == 2


def test_columns_are_read_by_ranges(data: Path, tmp_path: Path) -> None:
    """Packet tables cost their bytes and some requests, not the pixels next to them."""
    require("pyarrow")
    record = tmp_path / "records" / "event.npz"
    codecmeta.extract_many(data / "event_h264.mp4", tmp_path / "meta", jobs=0)
    (tmp_path / "records").mkdir()
    (tmp_path / "meta" / "event_h264.mp4.npz").rename(record)
    pixels = record.stat().st_size
    with serve(tmp_path / "records") as served:
        packets = codecmeta.record.dataset.load_entry(
            codecmeta.record.dataset.Entry("event", served.url("event.npz")), columns=()
        )
        assert packets.frames is None
        assert np.array_equal(packets.packet_size, codecmeta.load(record).packet_size)
        assert served.sent < pixels / 20
        assert served.requests < 30
        energy = codecmeta.record.dataset.load_entry(
            codecmeta.record.dataset.Entry("event", served.url("event.npz")), columns=("energy_innovation",)
        )
        assert energy.energy_innovation is not None
        assert energy.frames is None


def test_a_packed_folder_on_a_web_server(videos: Path, plain: Path, tmp_path: Path) -> None:
    """Its index is enough; what a server without ranges would have to send whole is refused."""
    packed = tmp_path / "packed"
    pack(plain, packed, shard_bytes=SHARD)
    with serve(packed) as served:
        dataset = codecmeta.open_dataset(served.url("index.parquet"))
        assert same_records(dataset, plain)
        tar = codecmeta.open_dataset(served.url("shard-000000.tar"))
        assert [record.info["source"]["name"] for record in tar] == ["0.b.mp4", "1.b.mp4", "2.b.mp4"]
        with pytest.raises(UsageError, match="do not list"):
            codecmeta.open_dataset(served.url(""))
        served.fault = "no ranges"
        with pytest.raises(SourceError) as caught:
            dataset[0]
        assert caught.value.code == "limit_exceeded"


def test_an_index_that_lies(folder: str, plain: Path, tmp_path: Path) -> None:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    pack(plain, folder)
    index = tmp_path / "index.parquet"
    index.write_bytes(read_object(f"{folder}/index.parquet", most_bytes=1 << 24))
    row = parquet.read_table(index).to_pylist()[0]
    for change, error in (
        ({"shard": "../other.tar"}, MetaFormatError),
        ({"shard": "s3://elsewhere/x.tar"}, MetaFormatError),
        ({"offset": 1 << 40}, MetaFormatError),
        ({"shard": "gone.tar"}, SourceError),
    ):
        parquet.write_table(arrow.Table.from_pylist([row | change]), index)
        set_object(f"{folder}/index.parquet", index.read_bytes())
        with pytest.raises(error):
            codecmeta.open_dataset(f"{folder}/index.parquet")[0]


def test_workers_of_a_data_loader(s3: str, plain: Path) -> None:
    """Worker processes that are forked open the store again; together they read each record once."""
    data = require("torch.utils.data")
    from compress import MetaStream

    pack(plain, f"{s3}/loader", shard_bytes=SHARD)
    stream = MetaStream(f"{s3}/loader", columns=())
    read = [record.info["source"]["name"] for record in data.DataLoader(stream, batch_size=None, num_workers=2)]
    assert sorted(read) == [f"{number}.b.mp4" for number in range(7)]


class Elsewhere(SerialEngine):
    """Engine whose workers do not see the files of this machine, and which loses the first shards that they write."""

    reach = "cluster"
    lost = 0

    def run(self, task: Any, jobs: Any, *, failure: Any) -> Any:
        left = self.lost
        for job in jobs:
            if isinstance(job, ShardJob) and left:
                left -= 1
                yield failure(job, "crashed", "the worker was killed", 0.0)
            else:
                yield from super().run(task, [job], failure=failure)


class Lossy(Elsewhere):
    lost = 2


@pytest.fixture
def bucket(s3: str) -> str:
    """Return the URL of an empty folder that workers of other machines reach."""
    return f"{s3}/{secrets.token_hex(4)}"


def extract_elsewhere(videos: Path, out: str, **options: Any) -> list[codecmeta.Outcome]:
    seen: list[codecmeta.Outcome] = []
    named: dict[str, Any] = {"engine": Elsewhere(), "options": OPTIONS, "report": seen.append} | options
    found = find_inputs([str(videos)], out=out, stdin=None)
    extract_inputs(found, out, packing=Packing(shard_bytes=SHARD), **named)
    return seen


@pytest.mark.parametrize("engine", [Elsewhere, Lossy])
def test_workers_of_other_machines_pack(
    bucket: str, videos: Path, plain: Path, engine: type[Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They write objects first, which are gone afterwards; a shard that is lost with its worker is written again."""
    # each line is a manifest of its own, as in a run of many minutes
    monkeypatch.setattr("codecmeta.batch.remote_output._PART_LINES", 1)
    seen = extract_elsewhere(videos, bucket, engine=engine())
    assert sorted(one.status for one in seen) == ["done"] * 7 + ["failed"]
    there = [name for name in names(bucket) if name.endswith((".npz", ".tar"))]
    assert there == [f"shard-00000{number}.tar" for number in ((0, 1, 2) if engine is Elsewhere else (2,))]
    assert same_records(codecmeta.open_dataset(bucket), plain)
    status = json.loads(command("status", bucket, "--json").stdout)
    assert [status[name] for name in ("done", "failed", "missing", "gone")] == [7, 1, 0, 0]
    again = extract_elsewhere(videos, bucket)
    assert sorted(one.status for one in again) == ["failed"] + ["kept"] * 7
    assert there == [name for name in names(bucket) if name.endswith((".npz", ".tar"))]


@pytest.mark.parametrize("then", [extract_elsewhere, extract])
def test_a_run_that_packs_elsewhere_is_killed(
    bucket: str, videos: Path, plain: Path, then: Callable[..., list[codecmeta.Outcome]]
) -> None:
    """Records stay objects until the next run, on any engine, packs them; nothing is extracted again."""
    seen: list[codecmeta.Outcome] = []

    def report(outcome: codecmeta.Outcome) -> None:
        seen.append(outcome)
        if sum(one.status == "done" for one in seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_elsewhere(videos, bucket, report=report)
    assert sum(name.endswith(".npz") for name in names(bucket)) == 2
    assert json.loads(command("status", bucket, "--json").stdout)["done"] == 5
    assert [one.status for one in then(videos, bucket)].count("kept") == 5
    assert not [name for name in names(bucket) if name.endswith(".npz")]
    assert same_records(codecmeta.open_dataset(bucket), plain)


def test_two_runs_that_pack_elsewhere_at_once(bucket: str, videos: Path, plain: Path) -> None:
    """A record that the other has moved into a shard already is where that one says."""
    seen: list[codecmeta.Outcome] = []

    def report(outcome: codecmeta.Outcome) -> None:
        seen.append(outcome)
        if len(seen) == 4:
            extract_elsewhere(videos, bucket)

    extract_elsewhere(videos, bucket, report=report)
    status = json.loads(command("status", bucket, "--json").stdout)
    assert [status[name] for name in ("done", "failed", "missing", "gone")] == [7, 1, 0, 0]
    assert same_records(codecmeta.open_dataset(bucket), plain)


def test_ray_packs_below_a_url(s3: str, ray_environment: Any, videos: Path, plain: Path) -> None:
    with one_machine(ray_environment):
        seen = extract(videos, f"{s3}/ray", engine="ray", jobs=None)
        again = extract(videos, f"{s3}/ray", engine="ray", jobs=None)
    assert sorted(one.status for one in seen) == ["done"] * 7 + ["failed"]
    assert sorted(one.status for one in again) == ["failed"] + ["kept"] * 7
    there = [name for name in names(f"{s3}/ray") if name.endswith((".npz", ".tar"))]
    assert len(there) >= 2 and all(name.endswith(".tar") for name in there)
    assert same_records(codecmeta.open_dataset(f"{s3}/ray"), plain)


def test_records_by_url_are_verified_against_videos_by_url(folder: str, data: Path) -> None:
    for name in ("event_h264.mp4", "still_h264.mp4"):
        set_object(f"{folder}/videos/{name}", (data / name).read_bytes())
    codecmeta.extract_many(f"{folder}/videos", f"{folder}/meta", options=OPTIONS, jobs=0)
    set_object(f"{folder}/videos/still_h264.mp4", (data / "event_h264.mp4").read_bytes())
    assert stat_object(f"{folder}/meta/extra.npz") is None
    set_object(f"{folder}/meta/extra.npz", b"no record")
    for extra in ((), ("--videos", f"{folder}/videos")):
        verified = command("verify", f"{folder}/meta", "--jobs", "0", "--json", *extra)
        codes = {Path(one["meta"]).name: one["code"] for one in map(json.loads, verified.stdout.splitlines())}
        assert codes == {"event_h264.mp4.npz": "", "still_h264.mp4.npz": "stale", "extra.npz": "bad_record"}
        assert verified.exit_code == 1
    assert verify_record  # the function that workers run


@pytest.mark.parametrize("command_line", [("verify",), ("status",), ("retry",)])
def test_a_folder_that_is_not_there(folder: str, command_line: tuple[str, ...]) -> None:
    refused = command(*command_line, f"{folder}/nothing")
    assert refused.exit_code == 2
    assert "nothing" in refused.stderr
