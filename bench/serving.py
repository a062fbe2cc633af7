"""Load on a server of vLLM with and without compression: the same questions alone and from many clients at once.

    python -m bench.serving CHECKPOINT --video data/event_h264.mp4 [--requests 200] [--clients 8] [--method infomerge]
        [--retention 0.1] [--out bench/results/serving.json] [-- OPTIONS OF vllm serve]

Two servers run one after the other: vLLM as it is, and with the plug-in. Each is asked every question once by itself,
which is the reference and warms it up, then all questions in turns by all clients at once. An answer is right if its
tokens are those of its single run and its log-probabilities within `TOLERANCE`: other requests of a batch change how
sums are ordered. Videos are read again for every
request and prompts are computed again (`--mm-processor-cache-gb 0 --no-enable-prefix-caching`, unless given otherwise);
the engine may keep what its vision encoder made of a video. Traffic stays on 127.0.0.1.

Times are those of clients: seconds to the first token of the streamed answer, and requests per second of the whole run.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.serving.vllm.command import write_command
from compress.serving.vllm.metrics import read_tokens
from compress.serving.vllm.server import Endpoint, await_ready, running
from compress.serving.vllm.settings import ServedMethod

TOLERANCE = 1e-3
"""Largest difference of log-probabilities between a request by itself and the same one in a batch, in float32."""

_WAIT_SECONDS = 1200.0
_DEFAULTS = {"--mm-processor-cache-gb": "0", "--port": "18080", "--host": "127.0.0.1"}
_NO_PREFIXES = "--no-enable-prefix-caching"


@dataclass(frozen=True, kw_only=True)
class StreamedAnswer:
    """A streamed answer.

    Attributes:
        ids: of its tokens.
        logprobs: per token, id -> log-probability of the likeliest ones.
        prompt: tokens of the prompt.
        first: seconds to the first token.
        seconds: to the last.
    """

    ids: tuple[int, ...]
    logprobs: tuple[dict[int, float], ...]
    prompt: int
    first: float
    seconds: float


class RequestError(Exception):
    """A request that failed, with the server's reason."""


def ask(text: str, video: bytes, *, before: str = "", kind: str = "video/mp4", **options: Any) -> dict[str, Any]:
    """Write the body of a streamed request about a video.

    Args:
        text: the question.
        video: bytes of the file.
        before: text in front of the video.
        kind: media type of the video.
        options: further fields of the body.
    """
    url = f"data:{kind};base64,{base64.b64encode(video).decode()}"
    parts: list[dict[str, Any]] = [{"type": "text", "text": before}] if before else []
    parts += [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    return {
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "max_tokens": 4,
        "ignore_eos": True,
        "logprobs": True,
        "top_logprobs": 5,
        "return_tokens_as_token_ids": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **options,
    }


def stream_answer(endpoint: Endpoint, body: dict[str, Any]) -> StreamedAnswer:
    """Send a request and read its streamed answer.

    Raises:
        RequestError: the server refuses it, or the answer breaks off.
    """
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=_WAIT_SECONDS)
    start = time.perf_counter()
    first: float | None = None
    ids: list[int] = []
    logprobs: list[dict[int, float]] = []
    usage: dict[str, Any] | None = None
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RequestError(f"{answer.status}: {answer.read(4000).decode(errors='replace')}")
        for event in _read_events(answer):
            if "error" in event:
                raise RequestError(str(event["error"]))
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                for token in (choice.get("logprobs") or {}).get("content") or ():
                    first = time.perf_counter() - start if first is None else first
                    ids.append(token_id(token["token"]))
                    logprobs.append({token_id(one["token"]): one["logprob"] for one in token["top_logprobs"]})
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise RequestError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
    if first is None or usage is None:
        raise RequestError("the answer broke off")
    return StreamedAnswer(
        ids=tuple(ids),
        logprobs=tuple(logprobs),
        prompt=int(usage["prompt_tokens"]),
        first=first,
        seconds=time.perf_counter() - start,
    )


def _read_events(answer: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in answer:
        text = line.decode().strip()
        if text.startswith("data: ") and text != "data: [DONE]":
            event: dict[str, Any] = json.loads(text[6:])
            yield event


def token_id(text: str) -> int:
    """Return the id that a token is written as."""
    return int(text.removeprefix("token_id:"))


def difference(one: StreamedAnswer, other: StreamedAnswer) -> float:
    """Return the largest difference of log-probabilities that both answers name; infinite for other tokens."""
    if one.ids != other.ids or one.prompt != other.prompt:
        return float("inf")
    pairs = zip(one.logprobs, other.logprobs, strict=True)
    return max(abs(a[token] - b[token]) for a, b in pairs for token in a.keys() & b.keys())


@dataclass(frozen=True, kw_only=True)
class Load:
    """Answers of a load: by number of the request; and what went wrong."""

    answers: dict[int, StreamedAnswer]
    errors: list[str]
    seconds: float


def run_load(endpoint: Endpoint, bodies: Sequence[dict[str, Any]], *, requests: int, clients: int) -> Load:
    """Send requests from several clients at once, request i of body i modulo their number."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(requests):
        waiting.put(number)
    answers: dict[int, StreamedAnswer] = {}
    errors: list[str] = []

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers[number] = stream_answer(endpoint, bodies[number % len(bodies)])
            except RequestError as error:
                errors.append(f"request {number}: {error}")

    threads = [threading.Thread(target=work) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(answers=answers, errors=errors, seconds=time.perf_counter() - start)


def measure(endpoint: Endpoint, bodies: Sequence[dict[str, Any]], *, requests: int, clients: int) -> dict[str, Any]:
    """Ask every question by itself, then all of them under load, and compare."""
    single = [stream_answer(endpoint, body) for body in bodies]
    alone = [stream_answer(endpoint, body).first for body in bodies]
    before = read_tokens(endpoint.fetch("/metrics").decode())
    load = run_load(endpoint, bodies, requests=requests, clients=clients)
    after = read_tokens(endpoint.fetch("/metrics").decode())
    gaps = [difference(single[number % len(bodies)], answer) for number, answer in load.answers.items()]
    first = sorted(answer.first for answer in load.answers.values())
    return {
        "requests": requests,
        "clients": clients,
        "errors": load.errors,
        "wrong": sum(gap > TOLERANCE for gap in gaps),
        "largest_difference": max(gaps, default=None),
        "prompt_tokens": statistics.mean(one.prompt for one in single),
        "video_tokens": {state: after[state] - before[state] for state in after},
        "requests_per_second": round(len(load.answers) / load.seconds, 3),
        "first_token_alone": round(statistics.median(alone), 4),
        "first_token_median": round(statistics.median(first), 4) if first else None,
        "first_token_p95": round(first[int(0.95 * (len(first) - 1))], 4) if first else None,
    }


def write_questions(videos: Sequence[Path]) -> list[dict[str, Any]]:
    """Write the questions of a load: eight, about the videos in turns, each with a beginning of its own."""
    texts = ("what moves?", "which colour?", "how many?", "where is it?")
    return [
        ask(texts[number % len(texts)], videos[number % len(videos)].read_bytes(), before=f"{number}. ")
        for number in range(8)
    ]


@contextmanager
def server_of(arguments: Sequence[str], log: Path) -> Iterator[Endpoint]:
    """Run a server with arguments of ``vllm serve``, its output in a file."""
    endpoint = Endpoint.of(arguments)
    with log.open("wb") as file, running(arguments, output=file) as child:
        try:
            await_ready(endpoint, child, _WAIT_SECONDS)
        except Exception:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise
        yield endpoint


def with_defaults(options: Sequence[str]) -> list[str]:
    """Return options of ``vllm serve`` with this benchmark's own where they are not given."""
    given = {word.partition("=")[0] for word in options}
    more = [word for name, value in _DEFAULTS.items() if name not in given for word in (name, value)]
    return [*options, *more, *([] if given & {"--enable-prefix-caching", _NO_PREFIXES} else [_NO_PREFIXES])]


def compare(
    servers: Mapping[str, Sequence[str]], bodies: Sequence[dict[str, Any]], *, requests: int, clients: int
) -> dict[str, dict[str, Any]]:
    """Run servers one after the other, each under the same load, and print what each did.

    Args:
        servers: name -> arguments of vLLM, from ``serve`` on.
        bodies: questions.
        requests: of the load.
        clients: at once.
    """
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in servers.items():
            with server_of(arguments, Path(folder, "log")) as endpoint:
                found[name] = measure(endpoint, bodies, requests=requests, clients=clients)
            print(name, json.dumps(found[name]), flush=True)
    return found


def is_sound(found: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether no request failed and no answer was wrong."""
    return not any(run["errors"] or run["wrong"] for run in found.values())


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line at two dashes: own arguments, and options of ``vllm serve`` with the defaults."""
    place = words.index("--") if "--" in words else len(words)
    return list(words[:place]), with_defaults(words[place + 1 :])


def main() -> None:
    """Run both servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--video", type=Path, nargs="+", required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--method", default="infomerge")
    parser.add_argument("--retention", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    own, options = split_arguments(sys.argv[1:])
    given = parser.parse_args(own)
    served = ServedMethod(method=given.method, retention=given.retention)
    servers = {
        "vLLM": ["serve", given.checkpoint, *options],
        f"{given.method} {given.retention:g}": write_command(given.checkpoint, served, more=options).arguments,
    }
    found = compare(servers, write_questions(given.video), requests=given.requests, clients=given.clients)
    if given.out is not None:
        about = {"checkpoint": Path(given.checkpoint).name, "videos": [video.name for video in given.video]}
        given.out.write_text(json.dumps({**about, "options": options, "runs": found}, indent=1) + "\n")
    sys.exit(0 if is_sound(found) else 1)


if __name__ == "__main__":
    main()
