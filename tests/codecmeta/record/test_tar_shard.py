"""Tar shards: whether they hold what a manifest says."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

from codecmeta.record.tar_shard import ShardFolder, write_shard


def test_a_shard_that_was_cut_holds_what_lies_before_its_end(tmp_path: Path) -> None:
    contents = {"a.mp4.npz": b"a" * 700, "deep/b.mp4.npz": b"b" * 5000}
    records = [
        (place, len(content), lambda content=content: io.BytesIO(content)) for place, content in contents.items()
    ]
    with write_shard(tmp_path / "one.tar", records) as found:
        pass
    first, last = found
    assert [ShardFolder(tmp_path).holds(one) for one in found] == [True, True]
    assert not ShardFolder(tmp_path).holds(replace(first, digest="another"))
    os.truncate(tmp_path / "one.tar", last.offset + last.bytes)
    assert [ShardFolder(tmp_path).holds(one) for one in found] == [True, True]
    os.truncate(tmp_path / "one.tar", last.offset + last.bytes - 1)
    assert [ShardFolder(tmp_path).holds(one) for one in found] == [True, False]
    (tmp_path / "one.tar").unlink()
    assert not ShardFolder(tmp_path).holds(first)
