"""The load benchmark of servers, with a server that answers by rule: what it counts as wrong, and as an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.serving import ask, difference, measure, run_load, split_arguments, stream_answer
from compress.serving.vllm.server import Endpoint

FAULTS: dict[str, int] = {}


class Answers(BaseHTTPRequestHandler):
    """A server that streams two tokens, whose log-probabilities follow from the question."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer /metrics."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'compress:video_tokens_total{state="encoded"} 100.0\n')

    def do_POST(self) -> None:
        """Answer a question, or fail by the next of the faults."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"][-1]["text"]
        FAULTS["asked"] = FAULTS.get("asked", 0) + 1
        if FAULTS["asked"] == FAULTS.get("fails at"):
            self.send_error(500)
            return
        shift = 0.5 if FAULTS["asked"] == FAULTS.get("is wrong at") else 0.0
        self.send_response(200)
        self.end_headers()
        for token in (len(text), 7):
            top = [{"token": f"token_id:{token}", "logprob": -1.0 - shift}, {"token": "token_id:1", "logprob": -2.0}]
            entry = {"token": f"token_id:{token}", "top_logprobs": top}
            self.send({"choices": [{"logprobs": {"content": [entry]}}]})
        self.send({"choices": [], "usage": {"prompt_tokens": 40 + len(text)}})
        self.wfile.write(b"data: [DONE]\n\n")

    def send(self, event: dict[str, Any]) -> None:
        """Send an event."""
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    FAULTS.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Endpoint(port=server.server_port)
    server.shutdown()
    server.server_close()
    thread.join()


BODIES = [ask("a", b"video"), ask("longer", b"video")]


def test_a_streamed_answer_is_read_token_by_token(endpoint: Endpoint) -> None:
    found = stream_answer(endpoint, BODIES[1])
    assert found.ids == (6, 7)
    assert found.logprobs[0] == {6: -1.0, 1: -2.0}
    assert found.prompt == 46
    assert 0 < found.first <= found.seconds


def test_every_request_of_a_load_is_answered_once(endpoint: Endpoint) -> None:
    load = run_load(endpoint, BODIES, requests=11, clients=4)
    assert sorted(load.answers) == list(range(11))
    assert [load.answers[number].prompt for number in (0, 1, 10)] == [41, 46, 41]
    found = measure(endpoint, BODIES, requests=6, clients=3)
    assert (found["errors"], found["wrong"], found["largest_difference"]) == ([], 0, 0)


@pytest.mark.parametrize(("fault", "errors", "wrong"), [("fails at", 1, 0), ("is wrong at", 0, 1)])
def test_a_failed_and_a_wrong_answer_are_counted(endpoint: Endpoint, fault: str, errors: int, wrong: int) -> None:
    # after two questions by themselves, each asked twice
    FAULTS[fault] = 7
    found = measure(endpoint, BODIES, requests=8, clients=2)
    assert (len(found["errors"]), found["wrong"]) == (errors, wrong)


def test_other_tokens_differ_infinitely(endpoint: Endpoint) -> None:
    one, other = (stream_answer(endpoint, body) for body in BODIES)
    assert difference(one, one) == 0
    assert difference(one, other) == float("inf")


def test_options_after_two_dashes_replace_the_defaults() -> None:
    own, options = split_arguments(["m", "--requests", "3", "--", "--port=1", "--enable-prefix-caching"])
    assert own == ["m", "--requests", "3"]
    assert options == [
        "--port=1", "--enable-prefix-caching", "--mm-processor-cache-gb", "0", "--host", "127.0.0.1",
    ]  # fmt: skip
    assert "--no-enable-prefix-caching" in split_arguments(["m"])[1]
