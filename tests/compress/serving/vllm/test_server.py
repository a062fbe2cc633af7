"""Servers that are started and checked, with a stand-in for vLLM in place of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compress.errors import ConfigError
from compress.serving.vllm.server import Endpoint
from compress.serving.vllm.trial_clip import FRAMES, SIDE, encode_clip

STAND_IN = Path(__file__).parent / "stand_in"
RUN = """
import sys
from compress.serving.vllm.command import ServeCommand
from compress.serving.vllm.families import FAMILIES
from compress.serving.vllm.server import ServerError, serve
from compress.serving.vllm.settings import ServedMethod
command = ServeCommand(
    arguments=("serve", "m", "--port", sys.argv[1]),
    family=next(iter(FAMILIES.values())),
    served=ServedMethod(method="infomerge", retention=0.1),
    differences=(),
)
try:
    sys.exit(serve(command, wait=float(sys.argv[2]), report=lambda text: print(text, flush=True)))
except ServerError as error:
    print(f"ServerError: {error}", flush=True)
    sys.exit(1)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def started(kind: str, folder: Path, *, wait: float = 120) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(STAND_IN), os.environ.get("PYTHONPATH", ""), str(Path.cwd())]),
        "STAND_IN": kind,
        "STAND_IN_LOG": str(folder / "log"),
    }
    words = [sys.executable, "-c", RUN, str(free_port()), str(wait)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def is_running(folder: Path) -> bool:
    """Whether the stand-in that wrote its number runs."""
    number = int((folder / "log").read_text().split()[1])
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_server_that_compresses_stays_and_is_handed_signals(
    tmp_path: Path, number: signal.Signals, name: str
) -> None:
    with started("compresses", tmp_path) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready at http://127.0.0.1:")
        assert "1000 -> 100 visual tokens (10.0 %) in a prompt of 120 tokens" in line
        assert process.poll() is None
        assert is_running(tmp_path)
        process.send_signal(signal.SIGHUP)
        while "SIGHUP" not in (tmp_path / "log").read_text():
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(60) == 40 + number
    assert (tmp_path / "log").read_text().splitlines()[1:] == ["SIGHUP", name]
    assert not is_running(tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("plain", "the server counts no tokens of videos, in a prompt of 1020"),
        ("keeps-all", "not compressed to 10 %: 1000 -> 1000 visual tokens"),
        ("ends", "the server ended with 7 before it was ready"),
    ],
)
def test_a_server_that_does_not_compress_is_stopped(tmp_path: Path, kind: str, reason: str) -> None:
    with started(kind, tmp_path) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert reason in said
    assert kind == "ends" or not is_running(tmp_path)


def test_a_server_that_never_answers_is_stopped(tmp_path: Path) -> None:
    with started("never-ready", tmp_path, wait=3) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "not ready after 3 seconds" in said
    assert not (tmp_path / "log").exists() or not is_running(tmp_path)


def test_where_it_listens_is_read_off_its_options() -> None:
    assert Endpoint.of(("serve", "m")).url == "http://127.0.0.1:8000"
    assert Endpoint.of(("serve", "m", "--port=9001", "--host", "0.0.0.0")).url == "http://127.0.0.1:9001"
    assert Endpoint.of(("serve", "m", "--host", "::1", "--api-key", "k")) == Endpoint(host="::1", port=8000, key="k")
    for words, message in ((("--ssl-keyfile", "x"), "--ssl-keyfile cannot"), (("--config", "x.yaml"), "--config")):
        with pytest.raises(ConfigError, match=message):
            Endpoint.of(("serve", "m", *words))


@pytest.mark.parametrize("words", [("--port",), ("--port", "http"), ("--port=-1",), ("--port", "--host")])
def test_a_port_that_is_no_number_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"--port is .*; give a number"):
        Endpoint.of(("serve", "m", *words))


def test_the_clip_of_the_first_request_is_a_whole_video() -> None:
    import codecmeta

    meta = codecmeta.extract(encode_clip(), frames="all")
    assert meta.info["stream"]["codec"] == "h264"
    assert (len(meta.frame_pts), meta.width, meta.height) == (FRAMES, SIDE, SIDE)
    assert meta.info["verdict"]["state"] == "complete"
