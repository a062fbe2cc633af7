"""Kernels that are compiled ahead of the first video."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from codecmeta.batch import warmup
from codecmeta.batch.cpu_levels import CPU_LEVELS, choose_cpu
from codecmeta.errors import UsageError
from codecmeta.simd import numba_cache

EXTRACT = """\
import sys
from numba.core import event
from codecmeta.simd.numba_cache import COMPILING
import codecmeta
compiled = []
class Listener(event.Listener):
    def on_start(self, event): compiled.append(event.data)
    def on_end(self, event): pass
event.register(COMPILING, Listener())
for path in sys.argv[1:]:
    for options in ({}, {"residual": "motion", "maps": ("innovation", "carried"), "motion": True, "qp": True}):
        try:
            codecmeta.extract(path, frames="uniform:8", **options)
        except codecmeta.SourceError as error:
            assert error.code == "no_signal", error
print(sorted(set(compiled)))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_left_to_compile(data: Path) -> None:
    """After a warm-up, a fresh process extracts videos of all codecs without compiling anything."""
    samples = warmup.compile_kernels(processes=2, remark=lambda text: None)
    assert [sample.problem for sample in samples] == [""] * len(warmup.SAMPLES)
    videos = [str(data / name) for name in ("event_h264.mp4", "cut_h264.mkv", "noise_mpeg4.avi", "pan_hevc.mp4")]
    ran = subprocess.run(
        [sys.executable, "-c", EXTRACT, *videos, str(data / "objects_vp9.webm")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"


def test_levels_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: {"sse2": True, "sse4.2": True, "avx2": False})
    assert choose_cpu("native") == {}
    assert choose_cpu("x86-64-v2") == {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": CPU_LEVELS["x86-64-v2"]}
    with pytest.raises(UsageError, match="lacks avx2"):
        choose_cpu("x86-64-v3")
    with pytest.raises(UsageError, match="choose from native, x86-64"):
        choose_cpu("pentium")


def test_a_machine_is_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first process that asks, and again after the package has changed."""
    asked: list[int] = []
    monkeypatch.setattr(numba_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(warmup, "compile_kernels", lambda **options: asked.append(options["processes"]))
    for _ in range(2):
        warmup.prepare_machine.cache_clear()
        warmup.prepare_machine()
    assert len(asked) == 1
    monkeypatch.setattr(numba_cache, "source_digest", lambda: "another")
    warmup.prepare_machine.cache_clear()
    warmup.prepare_machine()
    assert len(asked) == 2
    warmup.prepare_machine.cache_clear()


def test_an_encoder_that_is_missing_is_said() -> None:
    sample = warmup.Sample(name="nothing", encoder="no_such_encoder")
    warmed = warmup._warm((sample, "/nowhere.mkv"))
    assert "no_such_encoder" in warmed.problem
