"""Kernels are compiled when there is something to compile, and not otherwise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta import extraction
from codecmeta.batch import warmup


def test_what_was_compiled_is_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # compiling takes a minute; `codecmeta extract` does it in the tests of the command line
    extracted: list[Path] = []
    monkeypatch.setattr(extraction, "extract", lambda path, **_: extracted.append(path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert not warmup.is_compiled()
    warmup.compile_kernels()
    assert [path.name for path in extracted] == ["clip.mp4", "clip.avi"]
    assert warmup.is_compiled()
    (note,) = (tmp_path / "cache").iterdir()
    note.write_text("of an older version")
    assert not warmup.is_compiled()
    (tmp_path / "read-only").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "read-only"))
    warmup.compile_kernels()
    assert warmup.is_compiled()
    assert len(list((tmp_path / "home").rglob("*.txt"))) == 1


def test_any_source_and_numba_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h264").mkdir()
    for name in ("a.py", "h264/b.py"):
        (tmp_path / name).write_text("x = 1")
    seen = [warmup._state(tmp_path), warmup._state(tmp_path)]
    os.utime(tmp_path / "h264" / "b.py", ns=(5, 5))
    seen.append(warmup._state(tmp_path))
    (tmp_path / "c.py").touch()
    seen.append(warmup._state(tmp_path))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "999")
    seen.append(warmup._state(tmp_path))
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4


def test_looking_imports_nothing_heavy() -> None:
    code = (
        "import sys; from codecmeta.batch.warmup import is_compiled; is_compiled();"
        "print(sorted({'numba', 'av', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
