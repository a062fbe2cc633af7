"""Embeddings of a shortened video in a vLLM without the plug-in: the answer of `attach` with contiguous positions."""

from __future__ import annotations

import runpy
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="needs vLLM: scripts/test-serving")

import codecmeta
from bench.serving import server_of, token_id
from compress.methods import build
from compress.models.shortener import ModelShortener
from compress.runner import Job as RunJob
from compress.runner import run as run_job
from tests.serving.engine import NEW_TOKENS, SETTINGS, VOCABULARY, Answer, Job, Question, run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "send_embeddings.py"
QUESTION = "what moves?"
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for c in m.content %}{% if 'image' in c.type %}<|image_pad|>"
    "{% else %}{{ '\n' + c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
EQUAL, OTHER = 1e-5, 0.1


def test_a_server_answers_by_embeddings_as_attach_does(
    checkpoint: Callable[[str], str],
    records: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import transformers

    from compress.models.inputs.random_weights import ByteTokenizer

    model = checkpoint("llava-onevision")
    (tmp_path / "meta").mkdir()
    codecmeta.load(records["digits"]).save(tmp_path / "meta" / "clip.npz")
    settings = {"positions": "contiguous"}
    method = build("infomerge", retention=0.25, settings=settings)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_: ByteTokenizer())
    shortener = ModelShortener(checkpoint=model, embeddings=True)
    (report,) = run_job(
        tmp_path / "meta", tmp_path, RunJob(method=method, name="infomerge", retention=0.25, shortener=shortener)
    )
    assert report.status == "done", report.message
    question = Question(records=(records["digits"],), text=QUESTION)
    whole, shortened = run(
        Job(checkpoint=model, questions=(question,)),
        Job(checkpoint=model, questions=(question,), method="infomerge", retention=0.25, settings=settings),
    )
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "template").write_text(TEMPLATE)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    words = ["serve", model, "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--max-model-len", "2048"]
    words += ["--enforce-eager", "--skip-mm-profiling", "--enable-mm-embeds", "--max-logprobs", str(VOCABULARY)]
    words += ["--chat-template", str(tmp_path / "template")]
    ask = runpy.run_path(str(EXAMPLE))["ask"]
    with server_of(words, tmp_path / "log") as endpoint:
        found = ask(
            endpoint.url,
            tmp_path / "clip.npy",
            QUESTION,
            temperature=0,
            max_tokens=NEW_TOKENS,
            ignore_eos=True,
            logprobs=True,
            top_logprobs=VOCABULARY,
            return_tokens_as_token_ids=True,
        )
    ((expected,),), ((other,),) = shortened.answers, whole.answers
    assert found["usage"]["prompt_tokens"] == expected.prompt < other.prompt
    assert gap(found, expected) < EQUAL
    assert gap(found, other) > OTHER


def gap(found: dict, expected: Answer) -> float:  # type: ignore[type-arg]
    """Return the largest difference of log-probabilities of the first token."""
    first = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return max(abs(one["logprob"] - float(expected.logprobs[0][token_id(one["token"])])) for one in first)
