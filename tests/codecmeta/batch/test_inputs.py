"""SOURCE arguments."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from codecmeta.batch.inputs import EXTENSIONS, AbsolutePaths, find_inputs, output_place
from codecmeta.batch.shards import Shard
from codecmeta.container.video import open_video
from codecmeta.errors import SourceError, UsageError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("v/a.mp4", "v/sub/b.MKV", "v/sub/notes.txt", "v/meta/old.mp4", "v/two words.webm", "lone.bin"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def places(*sources: str, out: str = "meta", stdin: str = "") -> list[str]:
    return [item.place for item in find_inputs(sources, out=Path(out), stdin=io.StringIO(stdin))]


def test_folder(tree: Path) -> None:
    assert places("v") == ["a.mp4.npz", "two words.webm.npz", "meta/old.mp4.npz", "sub/b.MKV.npz"]
    assert places("v", out="v/meta") == ["a.mp4.npz", "two words.webm.npz", "sub/b.MKV.npz"]


def test_a_file_goes_to_its_own_name(tree: Path) -> None:
    assert places("v/sub/b.MKV", "lone.bin", f"{tree}/v/a.mp4") == ["b.MKV.npz", "lone.bin.npz", "a.mp4.npz"]
    assert places("../elsewhere/c.mp4", "v/../lone.bin") == ["c.mp4.npz", "lone.bin.npz"]


def test_files_that_share_a_name(tree: Path) -> None:
    """They are placed by their paths below the deepest folder that holds them; the others keep their names."""
    assert places("x/1/c.mp4", "lone.bin", "x/2/c.mp4") == ["1/c.mp4.npz", "lone.bin.npz", "2/c.mp4.npz"]
    assert places("c.mp4", "x/y/c.mp4", "../z/c.mp4") == [
        f"{tree.name}/c.mp4.npz",
        f"{tree.name}/x/y/c.mp4.npz",
        "z/c.mp4.npz",
    ]
    assert places("c.mp4", "./x/../c.mp4") == ["c.mp4.npz"] * 2, "one file"
    assert places("a/c.mp4", "b/c.mp4", "a/d.mp4", "b/d.mkv") == [
        "a/c.mp4.npz",
        "b/c.mp4.npz",
        "d.mp4.npz",
        "d.mkv.npz",
    ]
    # what comes late counts for what came early, on standard input, too
    assert places("a/c.mp4", "-", stdin="b/c.mp4") == ["a/c.mp4.npz", "b/c.mp4.npz"]


def test_one_rule_for_arguments_globs_and_lists(tree: Path) -> None:
    names = ["v/a.mp4", "./v//sub/b.MKV", "../x/c.mp4", "/c.mp4"]
    expected = ["a.mp4.npz", "b.MKV.npz", f"{tree.parent}/x/c.mp4.npz"[1:], "c.mp4.npz"]
    (tree / "list.txt").write_text("\n".join(names))
    assert places(*names) == expected
    assert places("@list.txt") == expected
    assert places("-", stdin="\r\n".join(names)) == expected
    assert places(f"{tree}/v/*.mp4") == ["a.mp4.npz"]


def test_paths_without_a_name(tree: Path) -> None:
    assert places("-", stdin="/\n.\n..\n../..\n") == ["_.npz"] * 4


def test_globs(tree: Path) -> None:
    assert places("v/*.mp4") == ["a.mp4.npz"]
    assert places("v/**/*.MKV") == ["b.MKV.npz"]
    with pytest.raises(UsageError, match="nothing matches"):
        places("v/*.avi")


def test_lists(tree: Path) -> None:
    (tree / "list.txt").write_text(f"v/a.mp4\n\n{tree}/lone.bin\n")
    assert places("@list.txt") == ["a.mp4.npz", "lone.bin.npz"]
    assert places("-", stdin="v/a.mp4\nv/two words.webm") == ["a.mp4.npz", "two words.webm.npz"]
    with pytest.raises(UsageError, match="cannot be read"):
        places("@missing.txt")


def test_a_file_named_like_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "[x].mp4").touch()
    assert places("[x].mp4") == ["[x].mp4.npz"]


def test_empty_folder_and_missing_file(tree: Path) -> None:
    (tree / "none").mkdir()
    with pytest.raises(UsageError, match="no file with the extension of a video"):
        places("none")
    assert places("missing.mp4") == ["missing.mp4.npz"], "a missing file is reported with the others"


def test_what_is_no_source(tree: Path) -> None:
    with pytest.raises(UsageError, match=r"write \."):
        places("v", "")
    with pytest.raises(UsageError, match="standard input is closed"):
        find_inputs(["-"], out=Path("meta"), stdin=None)


def test_links_to_folders_are_not_followed(tree: Path) -> None:
    (tree / "v" / "loop").symlink_to(tree / "v", target_is_directory=True)
    assert len(places("v")) == 4


def test_names_too_long_for_a_file_system(tmp_path: Path) -> None:
    long = "x" * 250 + ".mp4"
    folder, name = output_place(f"a/{long}").split("/")
    assert len(os.fsencode(name)) <= 255
    assert folder == "a"
    assert f"a/{name}" != output_place(f"a/y{long[1:]}")
    assert output_place("short.mp4") == "short.mp4.npz"
    deep = output_place("f" * 150 + "/short.mp4", longest=143)
    assert [len(part) for part in deep.split("/")] == [64, 13], "a folder's name is too long for an encrypted disk, say"


def test_names_too_long_for_this_file_system(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "n" * 150 + ".mp4"
    assert places(name) == [name + ".npz"]
    monkeypatch.setattr(os, "pathconf", lambda path, what: 143)
    (place,) = places(name, out="not/yet/there")
    assert len(place) == 68


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its videos are missing from the run: that must not look like success."""
    folder = tmp_path / "videos"
    for name in ("a/one.mp4", "closed/two.mp4", "z/three.mp4"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).touch()
    plain, access = os.scandir, os.access

    def scandir(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and access(path, mode))
    found = list(find_inputs([str(folder)], out=tmp_path / "out", stdin=None))
    assert [item.place for item in found] == ["a/one.mp4.npz", "z/three.mp4.npz", "closed.npz"]
    with pytest.raises(SourceError, match="folder that cannot be listed") as caught, open_video(found[-1].path):
        pass
    assert caught.value.code == "permission_denied"
    alone = list(find_inputs([str(folder / "closed")], out=tmp_path / "out", stdin=None))
    assert [item.path for item in alone] == [str(folder / "closed")]


def test_endings_are_those_of_the_system(tmp_path: Path) -> None:
    names = (
        "a.mp4",
        ".mp4",
        "..mp4",
        "...mp4",
        "a..mp4",
        ".a.MP4",
        "mp4",
        "a.",
        "a.mp4.",
        "a.mp4.txt",
        "a.tar.mkv",
        "ä.Webm",
    )
    for name in names:
        (tmp_path / name).touch()
    expected = sorted(name for name in names if os.path.splitext(name)[1].lower() in EXTENSIONS)  # noqa: PTH122
    assert [os.path.basename(item.path) for item in find_inputs([str(tmp_path)], out="m", stdin=None)] == expected  # noqa: PTH119
    assert 0 < len(expected) < len(names)


def test_absolute_paths_of_files_that_follow_one_another(tree: Path) -> None:
    paths = AbsolutePaths()
    for path in (
        "a",
        "b",
        "/a",
        "/b",
        "v/a",
        "v/b",
        "v//b",
        "./v/../c",
        "./v/../d",
        "..",
        "v/..",
        "v/.",
        "",
        "v/",
        "/",
        "../x",
    ):
        assert paths.of(path) == os.path.abspath(path), path  # noqa: PTH100
    assert paths.of("s3://bucket/a//b") == "s3://bucket/a//b"


@pytest.mark.parametrize("part", [Shard(), Shard(1, 2)])
def test_the_total_is_that_of_a_shard(tree: Path, part: Shard) -> None:
    inputs = find_inputs(["v", "lone.bin", "gone.mp4"], out=Path("v/meta"), stdin=None)
    assert inputs.total is None
    inputs.start_counting(part)
    for _ in range(1000):
        if inputs.total is not None:
            break
        time.sleep(0.01)
    assert inputs.total == sum(part.has(item.place) for item in inputs)
