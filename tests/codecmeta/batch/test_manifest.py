from __future__ import annotations

import json
from pathlib import Path

import pytest

from codecmeta.batch.manifest import MANIFEST, Manifest, encode_line, read_manifest
from codecmeta.batch.shards import Shard


def write(folder: Path, name: str, *lines: tuple[str, int]) -> None:
    (folder / name).write_bytes(b"".join(encode_line(place, {"status": "done", "n": n}) for place, n in lines))


def numbers(manifest: Manifest, place: str) -> list[int]:
    return [line["n"] for line in manifest.find(place)]


def test_the_last_line_of_a_place_in_each_manifest_is_valid(tmp_path: Path) -> None:
    write(tmp_path, "manifest-0-of-2.jsonl", ("a.npz", 1), ("b.npz", 2), ("a.npz", 3))
    write(tmp_path, MANIFEST, ("b.npz", 4), ("c.npz", 5), ("b.npz", 6))
    manifest = Manifest(tmp_path)
    manifest.read()
    assert [numbers(manifest, place) for place in ("a.npz", "b.npz", "c.npz", "d.npz")] == [[3], [2, 6], [5], []]
    assert [[line["n"] for line in lines] for lines in manifest] == [[3], [5], [2, 6]]
    manifest.close()


def test_what_is_appended_counts_from_the_next_reading(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path, Shard(1, 2))
    manifest.read()
    manifest.append("a.npz", {"status": "done", "n": 1})
    assert manifest.find("a.npz") == []
    manifest.read()
    assert numbers(manifest, "a.npz") == [1]
    manifest.close()


@pytest.mark.parametrize("place", ['"quoted"', "tab\t", "back\\slash", "ümlaut 文", "\udcff", '", "', "x" * 300])
def test_any_name_is_found(tmp_path: Path, place: str) -> None:
    write(tmp_path, MANIFEST, ("before", 1), (place, 2), ("after", 3))
    manifest = Manifest(tmp_path)
    manifest.read()
    assert numbers(manifest, place) == [2]
    manifest.close()


def test_more_manifests_than_may_be_open(tmp_path: Path) -> None:
    for part in range(150):
        write(tmp_path, f"manifest-{part:03d}.jsonl", ("shared", part), (f"own {part}", part))
    manifest = Manifest(tmp_path)
    manifest.read()
    for _ in range(2):
        assert numbers(manifest, "shared") == list(range(150))
        assert all(numbers(manifest, f"own {part}") == [part] for part in range(150))
    manifest.close()


def test_lines_that_are_none(tmp_path: Path) -> None:
    line = {"place": "a", "status": "done"}
    text = json.dumps(line)
    (tmp_path / MANIFEST).write_text(f'{text}\n{text} {{}}\n{text[:-3]}\n["place", "a"]\n\n{{"place": "b"}} }}\n')
    assert list(read_manifest(tmp_path)) == []


def test_which_line_of_several_manifests_is_valid(tmp_path: Path) -> None:
    """A run whose record another run has moved into a shard still lists it as an object."""
    lines = [
        {"status": "failed", "shard": None, "n": 0},
        {"status": "done", "n": 1, "shard": "shard-000000.tar"},
        {"status": "done", "n": 2, "shard": "shard-000001.tar"},
        {"status": "kept", "n": 3},
        {"status": "failed", "n": 4},
    ]
    valid = []
    for number, line in enumerate(lines):
        (tmp_path / f"manifest-{number}.jsonl").write_bytes(encode_line("a.npz", line))
        valid += [found["n"] for found in read_manifest(tmp_path)]
    assert valid == [0, 1, 2, 2, 2]


def test_a_line_that_is_cut_short_does_not_hide_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, MANIFEST, ("a", 1), ("b", 2))
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(encode_line("a", {"status": "done", "n": 3})[:-4])
    assert {line["place"]: line["n"] for line in read_manifest(tmp_path)} == {"a": 1, "b": 2}
