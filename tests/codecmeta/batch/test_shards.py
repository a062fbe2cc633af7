"""Shards: each video belongs to one of them, whoever lists it and in whatever order."""

from __future__ import annotations

from pathlib import Path

import pytest

import codecmeta
from codecmeta.batch.folder_status import read_status
from codecmeta.batch.outcome import Outcome
from codecmeta.batch.shards import Shard, parse_shard
from codecmeta.errors import UsageError
from tests.codecmeta.batch.run_batch import LIGHT


def test_every_place_belongs_to_one_shard() -> None:
    places = [f"a/{number}.mp4.npz" for number in range(10_000)] + ["\udcff.npz", "é.npz"]
    for count in (1, 2, 7):
        shards = [Shard(index, count) for index in range(count)]
        sizes = [0] * count
        for place in places:
            (owner,) = [shard.index for shard in shards if shard.has(place)]
            sizes[owner] += 1
        assert max(sizes) < 1.1 * len(places) / count
    # the value is part of the interface: machines of different versions may work on one folder
    # printf a/clip.mp4.npz | gzip ends with this CRC-32: 1214336517, which is 1 modulo 4
    assert Shard(1, 4).has("a/clip.mp4.npz")
    assert not Shard(0, 4).has("a/clip.mp4.npz")


@pytest.mark.parametrize("text", ["2/2", "0/0", "-1/2", "1", "1/2/3", "x/y", "0 /2", "٣/4"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        parse_shard(text)


def test_names_of_files() -> None:
    assert parse_shard("0/1").file_name("manifest", ".jsonl") == "manifest.jsonl"
    assert parse_shard("3/16").file_name("manifest", ".jsonl") == "manifest-3-of-16.jsonl"


def extract(videos: Path, out: Path, shard: str) -> list[Outcome]:
    seen: list[Outcome] = []
    codecmeta.extract_many(videos, out, options=LIGHT, jobs=0, shard=shard, report=seen.append)
    return seen


def test_shards_share_a_folder(tmp_path: Path, data: Path) -> None:
    """Together they do what one run does; each knows what the others did, and so does a run without shards."""
    videos, out = tmp_path / "videos", tmp_path / "meta"
    videos.mkdir()
    for number in range(8):
        (videos / f"{number}.mp4").symlink_to(data / "still_h264.mp4")
    (videos / "bad.mp4").write_text("text")
    seen = [extract(videos, out, f"{index}/3") for index in range(3)]
    assert sum(map(len, seen)) == 9
    assert len({outcome.source for part in seen for outcome in part}) == 9
    assert all(len(part) > 0 for part in seen)
    assert sorted(path.name for path in out.glob("manifest*")) == [f"manifest-{index}-of-3.jsonl" for index in range(3)]
    # other numbers of machines, and none
    for shards in (["0/2", "1/2"], ["0/1"]):
        again = [outcome for shard in shards for outcome in extract(videos, out, shard)]
        assert sorted(outcome.status for outcome in again) == ["failed"] + ["kept"] * 8
    status = read_status(out)
    assert (status.inputs, status.done, status.failed, status.missing) == (9, 8, 1, 0)
