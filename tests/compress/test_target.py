"""Files that are still to be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.errors import ConfigError, OutputError
from compress.target import PICTURES, check_target


def test_the_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    check_target("--plot", tmp_path / "a" / "b" / "x.PNG", endings=PICTURES)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("old")
    check_target("--out", tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "old"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "--plot is '{root}', a folder; name a file"),
        ("x.txt", "its ending is its format, one of .png, .pdf, .svg"),
        ("x", "its ending is its format"),
        ("file/x.png", "the folder '{root}/file' cannot be written"),
    ],
)
def test_what_cannot_be_written_is_refused(path: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError if path == "file/x.png" else ConfigError) as told:
        check_target("--plot", tmp_path / path, endings=PICTURES)
    assert says.format(root=tmp_path) in str(told.value)


def test_a_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        check_target("--out", Path("/dev/null"))


@pytest.mark.parametrize("name", ["a.npz", "shard-000000.tar", "index.parquet"])
def test_a_record_is_never_replaced(name: str, tmp_path: Path) -> None:
    """`--meta a.npz --html a.npz` is a slip that would cost the record."""
    (tmp_path / name).write_bytes(b"record")
    for option in ("--html", "--out", "--markdown"):
        with pytest.raises(ConfigError, match="would be replaced"):
            check_target(option, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"record"
