"""Machine code on disk is given up when a source that went into it changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta.simd import numba_cache

CALLEE = "from codecmeta.simd.numba_cache import kernel\n\n\n{decorator}\ndef inner(x):\n    return x + {value}\n"
CALLER = """\
from codecmeta.callee import inner
from codecmeta.constants import FACTOR
from codecmeta.simd.numba_cache import kernel


{decorator}
def outer(x):
    return FACTOR * inner(x)
"""
RUN = "from codecmeta.caller import outer; print(outer(1), sum(outer.stats.cache_hits.values()))"


def write_package(place: Path, *, decorator: str = "@kernel()") -> Path:
    """Write a package of a caller, a callee and a constant, each in a file of its own."""
    (place / "simd").mkdir(parents=True)
    for name in ("__init__.py", "simd/__init__.py"):
        (place / name).touch()
    (place / "simd" / "numba_cache.py").write_text(Path(numba_cache.__file__).read_text())
    (place / "caller.py").write_text(CALLER.format(decorator=decorator))
    (place / "callee.py").write_text(CALLEE.format(decorator=decorator, value=1))
    (place / "constants.py").write_text("FACTOR = 10\n")
    return place


def environment_of(package: Path, cache: Path) -> dict[str, str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(package.parent)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a file of the same size and second keeps its bytecode
    return environment


def run(package: Path, cache: Path | None = None) -> tuple[int, int]:
    """Return the result of the compiled caller, and how often it came from the disk."""
    environment = environment_of(package, cache or package / "machine-code")
    ran = subprocess.run(
        [sys.executable, "-c", RUN], cwd=package.parent, env=environment, capture_output=True, text=True, check=True
    )
    result, hits = ran.stdout.split()
    return int(result), int(hits)


@pytest.mark.parametrize(
    ("decorator", "stale"),
    [("@kernel()", False), ("import numba\n@numba.njit(cache=True)", True)],
    ids=["kernel", "numba alone"],
)
def test_a_callee_or_a_constant_that_changes_in_another_file(tmp_path: Path, decorator: str, stale: bool) -> None:
    package = write_package(tmp_path / "codecmeta", decorator=decorator)
    (package / "unrelated.py").touch()
    assert run(package) == (20, 0)
    (package / "callee.py").write_text(CALLEE.format(decorator=decorator, value=2))
    (package / "constants.py").write_text("FACTOR = 30\n")
    if stale:
        assert run(package) == (20, 1)
        return
    assert run(package) == (90, 0)
    (package / "unrelated.py").write_text("changed = True\n")
    assert run(package) == (90, 1)
    (package / "constants.py").write_text("FACTOR = 20\n")
    assert run(package) == (60, 0)


def test_machine_code_of_another_machine(tmp_path: Path) -> None:
    """It is taken where the package lies elsewhere with files of other times, and not where the content differs."""
    places = [write_package(tmp_path / "one" / "codecmeta"), write_package(tmp_path / "two" / "lib" / "codecmeta")]
    for place in places:
        os.utime(place / "callee.py", ns=(len(place.parts) * 10**18,) * 2)
    shared = tmp_path / "shared"
    assert run(places[0], shared) == (20, 0)
    assert run(places[1], shared) == (20, 1)
    (places[1] / "constants.py").write_text("FACTOR = 30\n")
    assert run(places[1], shared) == (60, 0)


def test_processes_that_add_signatures_at_a_time(tmp_path: Path) -> None:
    """All machine code is kept, and that of each signature is its own."""
    package = write_package(tmp_path / "codecmeta")
    values = ["1", "1.5", "1"]
    environment = environment_of(package, package / "machine-code")
    code = "import sys; from codecmeta.caller import outer; print(outer(eval(sys.argv[1])))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, value],
            cwd=package.parent,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for value in values
    ]
    assert [process.communicate()[0].strip() for process in started] == ["20", "25.0", "20"]
    code = f"from codecmeta.caller import outer; print(*map(outer, [{','.join(values)}]), outer.stats.cache_misses)"
    again = subprocess.run(
        [sys.executable, "-c", code], cwd=package.parent, env=environment, capture_output=True, text=True, check=True
    )
    assert again.stdout.split() == ["20", "25.0", "20", "Counter()"]
    assert [path.name for path in (package / "machine-code").rglob("*.lock") if ".nbi" not in path.name] == []


def test_the_index_names_machine_code_once_it_is_written(tmp_path: Path) -> None:
    """A process that loads at this moment would take what the file held before, that of another source for example."""

    @numba_cache.kernel()
    def double(a: float) -> float:
        return a + a

    file = double._cache._cache_file
    file._index_path = str(tmp_path / "double.nbi")
    file._cache_path = str(tmp_path)
    named = []
    write = file._save_data
    file._save_data = lambda *arguments: (named.append(dict(file._load_index())), write(*arguments))
    file.save("first", b"1")
    file.save("second", b"2")
    file.save("first", b"3")
    assert [sorted(one) for one in named] == [[], ["first"], ["first", "second"]]
    assert (file.load("first"), file.load("second")) == (b"3", b"2")


def test_what_a_module_needs() -> None:
    home = Path(numba_cache.__file__).parents[1]
    stamp = numba_cache.source_stamp(home / "h264/moment_kernels.py")
    needed = {name.removeprefix("codecmeta/") for name, _ in stamp}
    assert {"h264/moment_kernels.py", "record/energy_kernels.py", "entropy/slice_bits.py"} <= needed
    assert {"entropy/faults.py", "simd/vector_ir.py"} <= needed
    assert not {"batch/jobs.py", "extraction.py", "plot.py"} & needed


def test_every_compiled_function_of_the_package_is_one() -> None:
    """All go through `kernel` or the decorators of `codecmeta.simd.numba_compile`."""
    home = Path(numba_cache.__file__).parents[1]
    own = {home / "simd/numba_cache.py"}
    others = [path.name for path in sorted(home.rglob("*.py")) if path not in own and "njit" in path.read_text()]
    assert others == []


def test_machine_code_that_cannot_be_kept_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk of the cache may be full: that is no matter of the video that is read."""

    @numba_cache.kernel()
    def add(a: float, b: float) -> float:
        return a + b

    tried = 0

    def refuse(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(add._cache, "save_overload", refuse)
    monkeypatch.setattr(add._cache, "load_overload", lambda *_: None)
    monkeypatch.setattr(numba_cache, "_is_compiled", lambda *_: False)
    assert (add(1.0, 2.0), add(3.0, 4.0)) == (3.0, 7.0)
    assert tried == 1
