"""Records packed into tar shards with an index."""

from __future__ import annotations

import errno
import gc
import json
import tarfile
from pathlib import Path

import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

import codecmeta
from codecmeta.batch.packing import pack
from codecmeta.errors import MetaFormatError, OutputError, UsageError
from codecmeta.record.tar_shard import member_name
from tests.scale.conftest import require


@pytest.fixture
def meta(tmp_path: Path, data: Path) -> Path:
    """Make records of six videos, one of which is missing."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(6):
        (videos / f"{number}.mp4").symlink_to(data / ("still_h264.mp4" if number % 2 else "event_h264.mp4"))
    (videos / "bad.mp4").touch()
    options = codecmeta.Options(frames="uniform:2", residual="none", pixels=32)
    codecmeta.extract_many(videos, tmp_path / "meta", options=options, jobs=0)
    (tmp_path / "meta" / "5.mp4.npz").unlink()
    return tmp_path / "meta"


def test_shards_and_their_index(meta: Path, tmp_path: Path) -> None:
    parquet = require("pyarrow.parquet")
    packed = pack(meta, tmp_path / "packed", shard_bytes=40_000)
    assert (packed.records, packed.left) == (5, 1)
    assert packed.shards > 1
    tars = sorted((tmp_path / "packed").glob("*.tar"))
    assert packed.bytes == sum(path.stat().st_size for path in tars)
    table = parquet.read_table(tmp_path / "packed" / "index.parquet").to_pylist()
    assert [row["place"] for row in table] == [f"{number}.mp4.npz" for number in range(5)]
    assert [row["packets"] for row in table] == [300, 50, 300, 50, 300]
    assert {row["codec"] for row in table} == {"h264"}
    for row in table:
        # the index and the tar agree on the bytes, which are those of the record
        with tarfile.open(tmp_path / "packed" / row["shard"]) as archive:
            member = archive.getmember(row["member"])
            assert (member.offset_data, member.size) == (row["offset"], row["bytes"])
            content = archive.extractfile(member)
            assert content is not None
            assert content.read() == (meta / row["place"]).read_bytes()
    for path in (tmp_path / "packed", tmp_path / "packed" / "index.parquet", *tars[:1]):
        dataset = codecmeta.open_dataset(path)
        assert dataset[1].info == codecmeta.load(meta / "1.mp4.npz").info
    again = pack(meta, tmp_path / "again", shard_bytes=40_000)
    assert again == packed
    for path in tars:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    with pytest.raises(UsageError, match="holds shards already"):
        pack(meta, tmp_path / "packed")


def test_an_index_that_lies(meta: Path, tmp_path: Path) -> None:
    """It names no file but its neighbours, and no bytes outside them."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    pack(meta, tmp_path / "packed")
    index = tmp_path / "packed" / "index.parquet"
    rows = parquet.read_table(index).to_pylist()[:1]
    for change, message in (
        ({"shard": "../meta/0.mp4.npz"}, "next to the index"),
        ({"shard": str(meta / "0.mp4.npz")}, "next to the index"),
        ({"offset": -1}, "offset"),
        ({"offset": 1 << 40}, "not a readable"),
    ):
        parquet.write_table(arrow.Table.from_pylist([{**rows[0], **change}]), index)
        with pytest.raises(MetaFormatError, match=message):
            codecmeta.open_dataset(index)[0]
    index.write_bytes(b"PAR1")
    with pytest.raises(MetaFormatError, match="not a readable index"):
        codecmeta.open_dataset(index)


def test_the_command(meta: Path, tmp_path: Path) -> None:
    require("pyarrow")
    result = CliRunner().invoke(app, ["pack", str(meta), "--out", str(tmp_path / "packed"), "--json"])
    assert result.exit_code == 1, "one record is gone"
    assert json.loads(result.stdout)["records"] == 5
    assert CliRunner().invoke(app, ["pack", str(tmp_path), "--out", str(tmp_path / "p")]).exit_code == 2


def test_a_disk_that_is_full_says_so_and_no_more(meta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No error of pyarrow follows, whose file is gone by then."""
    require("pyarrow")
    with pytest.MonkeyPatch.context() as patch:

        def fail(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr("codecmeta.batch.shard_output.write_shard", fail)
        with pytest.raises(OutputError, match="No space left"):
            pack(meta, tmp_path / "packed")
    gc.collect()
    assert capfd.readouterr().err == ""
    assert list((tmp_path / "packed").iterdir()) == []


def test_names_of_members() -> None:
    assert member_name("a/clip.mp4.npz") == "a/clip_mp4.npz"
    assert member_name("v1.2/clip.npz") == "v1.2/clip.npz"
