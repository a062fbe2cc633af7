"""Commands whose standard output is full, closed, or read by nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from codecmeta import extract

ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")
COMMANDS = {
    "version": ("codecmeta", "--version"),
    "help": ("codecmeta", "--help"),
    "extract": ("codecmeta", "extract", "{video}", "--out", "{out}", "--frames", "0", "--jobs", "0", "--json"),
    "show": ("codecmeta", "show", "{meta}"),
    "show json": ("codecmeta", "show", "{meta}", "--json"),
    "methods": ("compress", "methods"),
    "flops": ("compress", "flops", "--json"),
    "run": ("compress", "run", "--meta", "{meta}", "--out", "{out}"),
    "run json": ("compress", "run", "--meta", "{meta}", "--out", "{out}", "--json"),
}


@pytest.fixture(scope="module")
def places(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("places")
    extract(data / "still_h264.mp4", frames="uniform:2").save(folder / "a.npz")
    return {"video": str(data / "still_h264.mp4"), "meta": str(folder / "a.npz"), "out": str(folder / "out")}


def command(name: str, places: dict[str, str]) -> list[str]:
    program, *arguments = (part.format(**places) for part in COMMANDS[name])
    return [sys.executable, "-c", f"from codecmeta_cli.{program} import main; main()", *arguments]


ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output_is_full(name: str, places: dict[str, str]) -> None:
    with FULL.open("w") as full:
        ran = subprocess.run(command(name, places), stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert ran.returncode == 3
    program = COMMANDS[name][0]
    assert ran.stderr.splitlines()[-1] == f"{program}: standard output cannot be written: No space left on device"
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_nobody_reads_standard_output(name: str, places: dict[str, str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(command(name, places), stdout=write, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    os.close(write)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "Broken pipe" not in ran.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell that closes descriptors")
@pytest.mark.parametrize(("json", "code"), [([], 0), (["--json"], 3)])
def test_standard_output_is_closed(json: list[str], code: int, places: dict[str, str]) -> None:
    """It matters to a command that writes there, and to no other."""
    arguments = [part for part in command("extract", places) if part != "--json"] + json
    ran = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *arguments], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert ("standard output cannot be written" in ran.stderr) == bool(code)
