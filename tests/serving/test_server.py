"""The OpenAI-compatible server, started by `compress serve` on this machine: real clips in requests, and load."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

import codecmeta
from bench.serving import RequestError, StreamedAnswer, ask, run_load, stream_answer
from compress.budget import count_tokens
from compress.serving.vllm.metrics import read_tokens
from compress.serving.vllm.server import Endpoint
from tests.codecmeta.make_video import picture
from tests.serving.engine import NEW_TOKENS, SETTINGS, VOCABULARY, Answer, Job, Question, run
from tests.serving.test_equality import EQUAL, OTHER

DATA = Path(__file__).resolve().parents[2] / "data"
CLIP = DATA / "sprites" / "sprites_07.mp4"
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
"""What the page serves."""
RETENTION = 0.1
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that `compress serve` runs, and its output."""

    endpoint: Endpoint
    log: Path
    process: subprocess.Popen[bytes]

    def ask(self, video: bytes, **options: Any) -> StreamedAnswer:
        return stream_answer(self.endpoint, body(video, **options))

    def tokens(self) -> dict[str, float]:
        return read_tokens(self.endpoint.fetch("/metrics").decode())


def body(video: bytes, *, text: str = "what moves?", **options: Any) -> dict[str, Any]:
    """Write a request whose prompt is that of `compress.models.inputs.prompt.prepare`."""
    written = ask(text, video, max_tokens=NEW_TOKENS, top_logprobs=VOCABULARY, **options)
    return {**written, "messages": [SYSTEM, *written["messages"]]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(checkpoint: Callable[[str], str], folder: Path) -> Iterator[Server]:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = ["serve", checkpoint("qwen2.5-vl"), "--method", "btm", "--retention", str(RETENTION), "--wait", "900", "--"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "2048"]
    words += ["--max-num-seqs", "8", "--enforce-eager", "--skip-mm-profiling", "--max-logprobs", str(VOCABULARY)]
    words += ["--trust-request-mm-kwargs"]
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", "from codecmeta_cli.compress import main; main()", *words],
            env={**os.environ, **SETTINGS, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
            stdout=file,
            stderr=file,
        )
        try:
            while "compress: ready at " not in log.read_text(errors="replace"):
                assert process.poll() is None, log.read_text(errors="replace")[-6000:]
                time.sleep(0.5)
            yield Server(endpoint=Endpoint(port=port), log=log, process=process)
        finally:
            process.terminate()
            process.wait(120)


def by_transformers(checkpoint: str, video: bytes, folder: Path, *, method: str | None = "btm") -> Answer:
    """Answer by `attach` about the frames that the server takes, or without it."""
    indices = sampled(video)
    meta = codecmeta.extract(video, frames=indices, pixels=4320)
    place = folder / f"{abs(hash(video))}.npz"
    meta.save(place)
    job = Job(checkpoint=checkpoint, questions=(Question(records=(str(place),)),), method=method, retention=RETENTION)
    (outcome,) = run(job)
    return outcome.answers[0][0]


def sampled(video: bytes) -> list[int]:
    """List the frames that vLLM's own loader takes."""
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY

    _, described = VIDEO_LOADER_REGISTRY.load("qwen2_vl").load_bytes(video)
    found: list[int] = described["frames_indices"]
    return found


def first_gap(served: StreamedAnswer, expected: Answer) -> float:
    """Largest difference of the first token's log-probabilities, whatever the prompts."""
    return max(abs(value - expected.logprobs[0][token]) for token, value in served.logprobs[0].items())


def gap(served: StreamedAnswer, expected: Answer) -> float:
    """Largest difference of log-probabilities; infinite for other tokens or another prompt."""
    if list(served.ids) != expected.ids or served.prompt != expected.prompt:
        return float("inf")
    pairs = zip(served.logprobs, expected.logprobs, strict=True)
    return max(abs(value - row[token]) for table, row in pairs for token, value in table.items())


def lossless(*, interval: int) -> bytes:
    """Encode a video whose pictures do not depend on the distance of its key frames, unlike its packets."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=4, options={"qp": "0", "g": str(interval), "bf": "0"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = 96, 64, "yuv420p", 1
        for number in range(16):
            frame = av.VideoFrame.from_ndarray(picture(3 * number), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def test_the_command_says_that_the_first_video_was_compressed(server: Server) -> None:
    said = re.search(r"first request: (\d+) -> (\d+) visual tokens", server.log.read_text())
    assert said is not None
    encoded, kept = int(said[1]), int(said[2])
    assert kept == count_tokens(RETENTION, encoded) < encoded


def test_a_streamed_answer_is_that_of_attach(server: Server, checkpoint: Callable[[str], str], folder: Path) -> None:
    video = CLIP.read_bytes()
    served = server.ask(video)
    expected = by_transformers(checkpoint("qwen2.5-vl"), video, folder)
    assert gap(served, expected) < EQUAL
    again = server.ask(video)
    assert gap(again, expected) < EQUAL, "the second request takes the video from the caches"
    whole = by_transformers(checkpoint("qwen2.5-vl"), video, folder, method=None)
    assert first_gap(served, whole) > OTHER, "compression changes the answer"


def test_tokens_are_in_the_log_and_in_the_metrics(server: Server) -> None:
    before = server.tokens()
    served = server.ask((DATA / "sprites" / "sprites_11.mp4").read_bytes())
    after = server.tokens()
    encoded, kept = (after[state] - before[state] for state in ("encoded", "kept"))
    assert 0 < kept == count_tokens(RETENTION, int(encoded))
    assert kept < served.prompt
    log = server.log.read_text(errors="replace")
    assert f"compress: btm keeps {kept:.0f} of {encoded:.0f} tokens of a video" in log
    assert "video: h264 " in log


def test_same_frames_with_other_packet_sizes_are_another_video(
    server: Server, checkpoint: Callable[[str], str], folder: Path
) -> None:
    videos = [lossless(interval=interval) for interval in (2, 16)]
    frames = [codecmeta.extract(video, frames="all", pixels=4320) for video in videos]
    assert frames[0].frames is not None
    np.testing.assert_array_equal(frames[0].frames, frames[1].frames)
    assert not np.array_equal(frames[0].gop_packet_size(), frames[1].gop_packet_size())
    answers = [server.ask(video) for video in videos]
    for video, answer in zip(videos, answers, strict=True):
        assert gap(answer, by_transformers(checkpoint("qwen2.5-vl"), video, folder)) < EQUAL


def test_a_codec_without_residual_is_served_and_the_log_says_so(server: Server) -> None:
    assert server.ask((DATA / "objects_vp9.webm").read_bytes(), kind="video/webm").ids
    assert "video: no residual: " in server.log.read_text(errors="replace")


def test_the_request_of_the_page_is_answered(server: Server, checkpoint: Callable[[str], str], folder: Path) -> None:
    page = (DATA.parent / "docs" / "serving.md").read_text()
    (command,) = re.findall(r"^```text\n(curl .*?)^```$", page, re.M | re.S)
    for written, here in (("127.0.0.1:8000", f"127.0.0.1:{server.endpoint.port}"), (MODEL, checkpoint("qwen2.5-vl"))):
        assert written in command
        command = command.replace(written, here)
    (folder / "clip.mp4").write_bytes(CLIP.read_bytes())
    before = server.tokens()
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["choices"][0]["message"]["content"]
    kept = server.tokens()["kept"] - before["kept"]
    assert 0 < kept < answer["usage"]["prompt_tokens"]


def test_a_request_chooses_its_frames_by_options_that_the_rule_reads(server: Server) -> None:
    def encoded(**video: object) -> float:
        before = server.tokens()
        assert server.ask(CLIP.read_bytes(), media_io_kwargs={"video": video}).ids
        return server.tokens()["encoded"] - before["encoded"]

    assert 0 < encoded(max_frames=4) < encoded(fps=4)
    with pytest.raises(RequestError, match=r"400.*sampling qwen2_vl reads no 'num_frames'; allowed are .*max_frames"):
        encoded(num_frames=4)
    with pytest.raises(RequestError, match=r"400.*fps is 'all'; allowed are numbers"):
        encoded(fps="all")


@pytest.mark.parametrize(
    "video", [b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n", CLIP.read_bytes()[:2000], b"\0" * 100], ids=["list", "cut", "none"]
)
def test_what_cannot_be_read_is_the_request_s_fault(server: Server, video: bytes) -> None:
    with pytest.raises(RequestError, match=r"^400: .*the video cannot be read"):
        server.ask(video)
    assert server.ask(CLIP.read_bytes()).ids


def test_under_load_every_answer_is_that_of_its_single_run(server: Server) -> None:
    clips = sorted((DATA / "sprites").glob("*.mp4"))
    bodies = [body(clip.read_bytes(), text=text) for clip in clips for text in ("what moves?", "how many are there?")]
    single = [stream_answer(server.endpoint, one) for one in bodies]
    load = run_load(server.endpoint, bodies, requests=32, clients=8)
    assert load.errors == []
    assert len(load.answers) == 32
    for number, answer in load.answers.items():
        expected = single[number % len(bodies)]
        assert answer.prompt == expected.prompt
        assert answer.ids == expected.ids
        for one, other in zip(answer.logprobs, expected.logprobs, strict=True):
            assert max(abs(one[token] - other[token]) for token in one) < EQUAL
    assert len({(*one.ids, one.prompt) for one in single}) > 1, "questions with equal answers would show nothing"


def test_the_server_ends_by_a_signal_to_the_command(server: Server) -> None:
    """Last: it ends the server."""
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(120)
    with pytest.raises(OSError):
        server.endpoint.fetch("/health", seconds=5)
