"""Collections of records: folders, tar shards, and their index."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import codecmeta
from codecmeta.errors import MetaFormatError, UsageError
from codecmeta.record.dataset import open_window
from codecmeta.storage.source_view import SourceView


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Three records, one of them deep in the folder."""
    place = tmp_path_factory.mktemp("meta")
    videos = {"b.mp4": "still_h264.mp4", "a.webm": "objects_vp9.webm", "deep/c.mkv": "cut_h264.mkv"}
    for name, video in videos.items():
        (place / name).parent.mkdir(exist_ok=True)
        codecmeta.extract(data / video, frames="uniform:8", residual="none", pixels=128).save(place / f"{name}.npz")
    return place


def pack_by_hand(folder: Path, tar: Path) -> None:
    with tarfile.open(tar, "w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"))
        for path in sorted(folder.rglob("*.npz")):
            archive.add(path, path.relative_to(folder).as_posix())


def names(dataset: codecmeta.MetaDataset) -> list[str]:
    return [record.info["source"]["name"] for record in dataset]


def test_a_folder_and_a_tar_of_it(folder: Path, tmp_path: Path) -> None:
    pack_by_hand(folder, tmp_path / "one.tar")
    for path in (folder, tmp_path / "one.tar", tmp_path):
        dataset = codecmeta.open_dataset(path)
        assert [entry.place for entry in dataset.entries] == ["a.webm.npz", "b.mp4.npz", "deep/c.mkv.npz"]
        assert names(dataset) == ["objects_vp9.webm", "still_h264.mp4", "cut_h264.mkv"]
        direct = codecmeta.load(folder / "b.mp4.npz")
        assert dataset[1].info == direct.info
        assert np.array_equal(dataset[1].frames, direct.frames)
        assert names(dataset[1:]) == ["still_h264.mp4", "cut_h264.mkv"]
        assert len(dataset[::2]) == 2


def test_columns_are_read_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of the others are not touched."""
    pack_by_hand(folder, tmp_path / "one.tar")
    read = 0
    plain = SourceView.readinto

    def counting(window: SourceView, buffer: object) -> int:
        nonlocal read
        done = plain(window, buffer)
        read += done
        return done

    monkeypatch.setattr(SourceView, "readinto", counting)
    tables = codecmeta.open_dataset(tmp_path / "one.tar", columns=())
    assert [len(record.packet_size) for record in tables] == [60, 50, 75]
    assert all(record.frames is None for record in tables)
    without = read
    (record, *_) = codecmeta.open_dataset(tmp_path / "one.tar", columns=("frames",))
    assert record.frames is not None
    assert read - without > record.frames.nbytes
    everything = sum(path.stat().st_size for path in folder.rglob("*.npz"))
    assert without < everything / 4
    with pytest.raises(UsageError, match="choose from packet_pts"):
        codecmeta.open_dataset(folder, columns=("pictures",))
    with pytest.raises(UsageError, match="choose from"):
        codecmeta.open_dataset(folder, columns="frames")


def test_what_is_no_dataset(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(MetaFormatError, match="not a readable tar"):
        codecmeta.open_dataset(tmp_path / "bad.tar")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "none.zip"):
        with pytest.raises(UsageError, match="give a folder"):
            codecmeta.open_dataset(path)
    # a record that is none names its tar and its place
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        member = tarfile.TarInfo("a.npz")
        member.size = 100
        archive.addfile(member, io.BytesIO(b"x" * 100))
    (_, *_), dataset = ([0], codecmeta.open_dataset(tmp_path / "one.tar"))
    with pytest.raises(MetaFormatError, match=r"one\.tar:a\.npz"):
        dataset[0]


def test_a_tar_that_was_cut(folder: Path, tmp_path: Path) -> None:
    """What begins after its end is refused when it is read, and not taken from elsewhere."""
    pack_by_hand(folder, tmp_path / "one.tar")
    whole = (tmp_path / "one.tar").read_bytes()
    dataset = codecmeta.open_dataset(tmp_path / "one.tar")
    (tmp_path / "one.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MetaFormatError):
        dataset[2]


def test_window(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with open_window(str(tmp_path / "a"), 10, 20) as window:
        assert window.read() == bytes(range(10, 30))
        assert window.seek(-5, io.SEEK_END) == 15
        assert window.read(100) == bytes(range(25, 30))
        assert window.seek(50) == 50
        assert window.read(1) == b""
        with pytest.raises(OSError, match="seek"):
            window.seek(-1)
    with open_window(str(tmp_path / "a"), (1 << 63) - 2, 20) as window:
        assert window.read() == b""
    with pytest.raises(FileNotFoundError), open_window(str(tmp_path / "b"), 0, 1):
        pass


def test_hidden_members_stay_hidden(folder: Path, tmp_path: Path) -> None:
    """A record of a subset of columns is validated like a whole one."""
    shutil.copy(folder / "b.mp4.npz", tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "a") as archive, archive.open("qp.npy", "w") as member:
        np.lib.format.write_array(member, np.zeros((7, 1, 1), np.int8))
    with pytest.raises(MetaFormatError, match="qp"):
        codecmeta.open_dataset(tmp_path, columns=())[0]
