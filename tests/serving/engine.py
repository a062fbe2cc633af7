"""Answers to the same questions by `attach` in transformers and by an engine of vLLM, each in a process of its own.

`python engine.py` reads jobs from its standard input and writes an outcome for each, until there are no more. An answer
is, per generated token, its id and the log-probabilities of the whole vocabulary.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 400
NEW_TOKENS = 4
FORK_SERVER = "CODECMETA_FORK_SERVER"
"""Setting of a process whose engines, in processes of their own, need not import vLLM each."""
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_CI_ENV": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about one video or several.

    Attributes:
        records: files of the videos' records, with frames.
        text: the question.
        codec: whether the codec's metadata goes with the frames.
        opening: text in front of the whole prompt.
    """

    records: tuple[str, ...]
    text: str = "what moves?"
    codec: bool = True
    opening: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Questions to one model.

    Attributes:
        checkpoint: folder.
        questions: what is asked.
        method: None for the model as it is.
        retention: of the method.
        settings: of the method.
        rpm: settings of RPM, which merges patches before the encoder; None for no RPM.
        attach: options of `attach`.
        overrides: further entries of the key ``compress``.
        options: of the engine; None for transformers.
        stock: let vLLM's own architecture run, with its own pruning at this rate.
        rounds: numbers of the questions that are asked together, round by round; all of them once if empty.
        environment: of the engine's process.
    """

    checkpoint: str
    questions: tuple[Question, ...]
    method: str | None = None
    retention: float = 0.25
    settings: dict[str, str] = field(default_factory=dict)
    rpm: dict[str, str] | None = None
    attach: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] | None = None
    stock: float | None = None
    rounds: tuple[tuple[int, ...], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer: ids (n,), log-probabilities (n, vocabulary) and how many tokens the prompt had."""

    ids: list[int]
    logprobs: NDArray[np.float64]
    prompt: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Answers per round and question, what was logged, and what the job failed with; empty if it did not."""

    answers: list[list[Answer]]
    log: str
    failure: str = ""


class Worker:
    """Process that runs jobs one after the other, which saves all but the first the imports."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
        settings = {name: value for name, value in SETTINGS.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **settings, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def run(self, job: Job) -> Outcome:
        """Run a job; a process that ends is a failure of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begin = os.fstat(self._log.fileno()).st_size
        try:
            pickle.dump(job, self._process.stdin)
            self._process.stdin.flush()
            outcome: Outcome = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            outcome = Outcome(answers=[], log="", failure=f"the process ended with {self.close()}: {error}")
        size = os.fstat(self._log.fileno()).st_size - begin
        # the place in the file is shared with the process
        output = os.pread(self._log.fileno(), size, begin).decode(errors="replace")
        # what engines in processes of their own log is in the output only
        return replace(outcome, log=outcome.log or output, failure=outcome.failure and output + outcome.failure)

    def close(self) -> int:
        """End the process and return its exit code."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


_WORKERS: dict[Any, Worker] = {}


def attempt(job: Job) -> Outcome:
    """Run a job in the process of its kind, which ends if the job fails."""
    kind = (job.options is None, tuple(job.environment.items()))
    if kind not in _WORKERS:
        if not _WORKERS:
            atexit.register(_close_all)
        _WORKERS[kind] = Worker(job.environment)
    outcome = _WORKERS[kind].run(job)
    if outcome.failure:
        _WORKERS.pop(kind).close()
    return outcome


def _close_all() -> None:
    while _WORKERS:
        _WORKERS.popitem()[1].close()


def run(*jobs: Job) -> list[Outcome]:
    """Run jobs.

    Raises:
        RuntimeError: one failed, or its process.
    """
    outcomes = []
    for job in jobs:
        outcomes.append(attempt(job))
        if failure := outcomes[-1].failure:
            raise RuntimeError(f"{job.method} on {job.checkpoint} failed:\n{failure[-6000:]}")
    return outcomes


def fail(job: Job) -> str:
    """Run a job that fails and return what it failed with."""
    outcome = attempt(job)
    if not outcome.failure:
        raise RuntimeError(f"{job.method} on {job.checkpoint} did not fail")
    return outcome.failure


def difference(one: Answer, other: Answer) -> float:
    """Return the largest difference of log-probabilities, infinite for other tokens."""
    return float(np.abs(one.logprobs - other.logprobs).max()) if one.ids == other.ids else float("inf")


def _by_transformers(job: Job) -> list[list[Answer]]:
    import contextlib

    import torch

    import codecmeta
    from compress.compressor import Pipeline
    from compress.methods import build
    from compress.models.inputs.checkpoint import load_model
    from compress.models.inputs.prompt import prepare
    from compress.models.inputs.random_weights import ByteTokenizer

    model = load_model(job.checkpoint, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    answers = []
    for question in job.questions:
        (record,) = question.records
        meta = codecmeta.load(record)
        inputs = prepare(model, meta, question.text, tokenizer=ByteTokenizer())
        inputs = _with_opening(inputs, question.opening)
        session: Any = contextlib.nullcontext()
        if job.method is not None:
            method = build(job.method, retention=job.retention, settings=job.settings)
            if job.rpm is not None:
                method = Pipeline(build("rpm", settings=job.rpm), method)
            session = method.attach(model, meta if question.codec else None, **job.attach)
        with session, torch.inference_mode():
            made = model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        logits = torch.stack(made.logits, dim=1)[0].double()
        kept = session.results[0] if job.method is not None else None
        length = inputs["input_ids"].shape[1]
        answers.append(
            Answer(
                ids=made.sequences[0, length:].tolist(),
                logprobs=logits.log_softmax(dim=-1).numpy(),
                prompt=length if kept is None else length - kept.tokens_in + kept.tokens_out,
            )
        )
    return [answers]


def _with_opening(inputs: dict[str, Any], opening: str) -> dict[str, Any]:
    import torch

    from compress.models.inputs.random_weights import ByteTokenizer

    ids = torch.tensor([ByteTokenizer().encode(opening)], dtype=torch.int64)
    ahead = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.zeros_like(ids).int()}
    return {name: torch.cat((ahead[name], value), dim=1) if name in ahead else value for name, value in inputs.items()}


def _request(question: Question, model_type: str, *, codec_known: bool) -> dict[str, Any]:
    """Write a question as vLLM takes it: the prompt of `prepare`, in which one token stands for the video."""
    import codecmeta
    from compress.models.inputs.random_weights import ByteTokenizer
    from compress.serving.vllm import codec

    letters = ByteTokenizer()
    before, after = {
        "qwen3_vl": ("<|im_start|>user\n", f"{question.text}<|im_end|>\n<|im_start|>assistant\n"),
        "llava_onevision": ("<|im_start|>user ", f"\n{question.text}<|im_end|><|im_start|>assistant\n"),
    }.get(
        model_type,
        (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>",
            f"<|vision_end|>{question.text}<|im_end|>\n<|im_start|>assistant\n",
        ),
    )
    ids = letters.encode(question.opening + before) + [7] * len(question.records) + letters.encode(after)
    videos = []
    for record in question.records:
        meta = codecmeta.load(record)
        described = codec.describe_video(meta)
        if not (question.codec and codec_known):
            del described[codec.KEY]
        videos.append((meta.frames, described))
    return {"prompt_token_ids": ids, "multi_modal_data": {"video": videos}}


def _fork_engines() -> None:
    """Fork engines from a process that has imported vLLM and done nothing else, instead of spawning them."""
    import multiprocessing

    from vllm.v1.engine import utils

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vllm.v1.engine.core", "vllm.v1.worker.cpu_worker", "tests.serving.forked_workers"])
    utils.get_mp_context = lambda: context


def _by_vllm(job: Job) -> list[list[Answer]]:
    import json

    from vllm import LLM, SamplingParams

    from compress.serving.vllm.families import find
    from compress.serving.vllm.settings import ServedMethod

    if FORK_SERVER in os.environ:
        _fork_engines()
    config = json.loads((Path(job.checkpoint) / "config.json").read_text())
    options = dict(job.options or {})
    if job.method is not None:
        served = ServedMethod(method=job.method, retention=job.retention, settings=job.settings, rpm=job.rpm)
        options["video_pruning_rate"] = served.pruning_rate
        options["hf_overrides"] = {
            "architectures": [find(config["architectures"][0]).served],
            "compress": served.overrides() | job.overrides,
        }
    elif job.stock is not None:
        options["video_pruning_rate"] = job.stock
    engine = LLM(
        **{
            "model": job.checkpoint,
            "dtype": "float32",
            "max_model_len": 2048,
            "max_num_seqs": 4,
            "enforce_eager": True,
            "skip_mm_profiling": True,
            "kv_cache_memory_bytes": 2**26,
            "limit_mm_per_prompt": {
                "image": {"count": 1, "width": 64, "height": 64},
                "video": {"count": 2, "num_frames": 4, "width": 64, "height": 64},
            },
            "max_logprobs": VOCABULARY,
            "disable_log_stats": True,
            **options,
        }
    )
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, logprobs=VOCABULARY, ignore_eos=True)
    rounds = []
    for numbers in job.rounds or (range(len(job.questions)),):
        made = engine.generate(
            [
                _request(job.questions[number], config["model_type"], codec_known=job.method is not None)
                for number in numbers
            ],
            sampling,
            use_tqdm=False,
        )
        rounds.append([_answer(one) for one in made])
    del engine
    return rounds


def _answer(made: Any) -> Answer:
    output = made.outputs[0]
    table = np.full((len(output.token_ids), VOCABULARY), -np.inf)
    for row, known in zip(table, output.logprobs, strict=True):
        for token, entry in known.items():
            row[token] = entry.logprob
    return Answer(ids=list(output.token_ids), logprobs=table, prompt=len(made.prompt_token_ids))


def work(job: Job) -> Outcome:
    """Run a job in this process."""
    import gc
    import logging
    import traceback

    if job.options is not None:
        import vllm  # noqa: F401  (it sets up logging, and takes handlers away)
    # vLLM collects garbage eight times per engine; among all that it imported that takes longer than the rest
    gc.freeze()
    gc.collect, collect = lambda *_: 0, gc.collect

    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger("vllm.compress").addHandler(handler)
    try:
        answers = _by_transformers(job) if job.options is None else _by_vllm(job)
    except Exception:  # whatever it is, it belongs to this job
        return Outcome(answers=[], log=lines.getvalue(), failure=traceback.format_exc())
    finally:
        logging.getLogger("vllm.compress").removeHandler(handler)
        if job.options is not None:
            from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
        gc.collect = collect
        collect()
    return Outcome(answers=answers, log=lines.getvalue())


def work_on(jobs: BinaryIO, outcomes: BinaryIO) -> None:
    """Run jobs as they are read."""
    while True:
        try:
            job = pickle.load(jobs)
        except EOFError:
            return
        pickle.dump(work(job), outcomes)
        outcomes.flush()


if __name__ == "__main__":
    # the classes of pickled jobs belong to the module of this name, not to __main__
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.serving import engine

    # whatever prints must not meet the outcomes
    with os.fdopen(os.dup(0), "rb") as given, os.fdopen(os.dup(1), "wb") as found:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        engine.work_on(given, found)
    os._exit(0)
