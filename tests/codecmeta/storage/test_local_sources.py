"""Local files, which need none of the packages for URLs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta import SourceError
from codecmeta.storage.local_file import LocalFile

SCRIPT = """
import sys
import codecmeta
from codecmeta_cli.codecmeta import app
codecmeta.extract(sys.argv[1], residual="none", pixels=None)
codecmeta.extract_many(sys.argv[1], sys.argv[2], options=codecmeta.Options(residual="none", pixels=None), jobs=0)
print(sorted({"fsspec", "s3fs", "gcsfs", "urllib3", "aiohttp"}.intersection(sys.modules)))
"""


def test_packages_for_urls_are_loaded_for_urls_only(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(data / "still_h264.mp4"), str(tmp_path / "meta")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    )
    assert done.stdout.strip() == "[]"


def test_reads_of_a_local_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(200)))
    with LocalFile(path) as source:
        assert (source.name, source.size, source.is_local) == ("a", 200, True)
        assert source.read_at(5, 3) == b"\5\6\7"
        assert source.read_at(198, 9) == b"\xc6\xc7"
        assert source.read_each([1, 150], 2) == [b"\1\2", b"\x96\x97"]
        assert source.describe_access() == {}
        path.rename(tmp_path / "b")
        path.write_bytes(b"other")
        assert source.read_at(0, 2) == b"\0\1"
        with source.reopen() as again:
            assert again.size == 5
    for other, code in ((tmp_path, "not_a_file"), (tmp_path / "none", "not_a_file")):
        with pytest.raises(SourceError) as caught:
            LocalFile(other)
        assert caught.value.code == code
