"""Runs that are ended while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codecmeta import extract, load

ROOT = Path(__file__).resolve().parents[2]
SLOW_DISK = """
import os, signal, stat, sys, time
# as in a terminal, whatever the tests themselves were started by
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
def fsync(descriptor):
    status = os.fstat(descriptor)
    # neither a folder nor the record of the run, which is small
    if not stat.S_ISREG(status.st_mode) or status.st_size < 2000:
        return
    print("writing", file=sys.stderr, flush=True)
    time.sleep(60)
os.fsync = fsync
from codecmeta_cli.{program} import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("program", ["codecmeta", "compress"])
def test_nothing_half_written_stays(data: Path, tmp_path: Path, program: str, number: int) -> None:
    video, out = data / "still_h264.mp4", tmp_path / "out"
    extract(video, frames="uniform:2", residual="none").save(tmp_path / "a.npz")
    arguments = {
        "codecmeta": ["extract", str(video), "--frames", "0", "--jobs", "0"],
        "compress": ["run", "--meta", str(tmp_path / "a.npz")],
    }[program]
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_DISK.format(program=program), *arguments, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"},
    ) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line == "writing\n":
                break
        assert [path for path in out.rglob(".*") if path.suffix == ".tmp"]
        running.send_signal(number)
        left = running.stderr.read()
    assert running.returncode == 128 + number, left
    assert "Traceback" not in left
    assert {path.name for path in out.rglob("*") if path.is_file()} <= {"manifest.jsonl", "run.json", "summary.json"}


def members(group: int) -> list[int]:
    """List the processes of a process group, without those that have ended but are not yet reaped."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = place.read_text().rpartition(")")
        except OSError:
            continue
        state, _, of_group = rest.split()[:3]
        if int(of_group) == group and state != "Z":
            found.append(int(place.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux, which lists the processes of a group")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_stays(data: Path, tmp_path: Path, number: int) -> None:
    """However the run ends, its workers end, and what they write is there whole or not at all."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for index in range(40):
        (videos / f"{index}.mp4").write_bytes((data / "still_h264.mp4").read_bytes())
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from codecmeta_cli.codecmeta import main; main()"
    command = [sys.executable, "-c", code, "extract", str(videos), "--out", str(tmp_path / "out"), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True) as run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith("done ")
        run.send_signal(number)
        run.stderr.read()
    deadline = time.monotonic() + 600
    while members(run.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert members(run.pid) == []
    done = list((tmp_path / "out").glob("*.npz"))
    assert 1 <= len(done) < 40
    for path in done:
        load(path)
    if number != signal.SIGKILL:
        assert not list((tmp_path / "out").glob(".*.tmp"))
