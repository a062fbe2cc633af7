"""The wheel: what it installs, listed by the build backend itself."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 10_000_000
"""Bytes of all files together; the weights of the demo model take 7 of them."""

DATA = {
    "codecmeta/h264/tables.json",
    "codecmeta/hevc/tables.json",
    "compress/accuracy/frozen.json",
    "compress/comparison/page.css",
    "compress/comparison/page.html",
    "compress/comparison/page.js",
    "compress/demo/weights/config.json",
    "compress/demo/weights/generation_config.json",
    "compress/demo/weights/model.safetensors",
    "compress/demo/weights/vocab.json",
}
"""Files that are no Python: tables of the standards, the benchmark's scenes, and the model that answers offline."""


@pytest.fixture(scope="module")
def files() -> dict[str, Path]:
    """Place in the wheel -> file of the checkout."""
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed: wheel NOT checked")
    builder = wheel.WheelBuilder(str(ROOT))
    return {one.distribution_path: Path(one.path) for one in builder.recurse_included_files()}


def test_three_packages_and_no_other(files: dict[str, Path]) -> None:
    """A top-level package called `cli` would meet those of other projects."""
    assert {name.partition("/")[0] for name in files} == {"codecmeta", "compress", "codecmeta_cli"}
    source = {path.relative_to(ROOT).as_posix().removeprefix("cli/") for path in files.values()}
    assert source == set(files)
    everything = [path for top in ("codecmeta", "compress", "cli/codecmeta_cli") for path in (ROOT / top).rglob("*.py")]
    assert {path.relative_to(ROOT).as_posix().removeprefix("cli/") for path in everything} <= source


def test_no_logs_and_no_data_but_what_is_needed(files: dict[str, Path]) -> None:
    others = {name for name in files if not fnmatch.fnmatch(name, "*.py") and not name.endswith("/py.typed")}
    assert others == DATA
    assert (ROOT / "compress" / "demo" / "weights" / "training.json").is_file(), "the control: a log that stays out"
    assert sum(path.stat().st_size for path in files.values()) < LARGEST
