"""Records as a dataset of PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import codecmeta
from compress import MetaStream
from compress.errors import ConfigError

COUNT = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    place = tmp_path_factory.mktemp("meta")
    record = codecmeta.extract(data / "still_h264.mp4", frames="uniform:2", residual="none", pixels=32)
    for number in range(COUNT):
        record.info["source"]["name"] = f"{number:02d}"
        record.save(place / f"{number:02d}.npz")
    return place


def names(stream: MetaStream, *, workers: int) -> list[str]:
    loader: DataLoader[codecmeta.VideoMeta] = DataLoader(stream, batch_size=None, num_workers=workers)
    return [record.info["source"]["name"] for record in loader]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (3, 0), (1, 2), (2, 2)])
def test_each_record_is_read_once(folder: Path, world: int, workers: int) -> None:
    parts = [names(MetaStream(folder, rank=rank, world=world), workers=workers) for rank in range(world)]
    assert sorted(name for part in parts for name in part) == [f"{number:02d}" for number in range(COUNT)]
    assert all(part for part in parts)


def test_order_and_columns(folder: Path) -> None:
    stream = MetaStream(folder, columns=())
    records = list(stream)
    assert [record.info["source"]["name"] for record in records] == [f"{number:02d}" for number in range(COUNT)]
    assert all(record.frames is None for record in records)


def test_ranks_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert names(MetaStream(folder), workers=0) == ["01", "05", "09"]
    with pytest.raises(ConfigError, match="rank=4 of world=4"):
        MetaStream(folder, rank=4)
