"""The task of examples/lmms_eval: what its file names exists, and lmms-eval runs it where it is installed."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TASK = ROOT / "examples" / "lmms_eval"
QUESTIONS = json.loads((ROOT / "data" / "sprites" / "questions.json").read_text(encoding="utf-8"))
RETENTIONS = (1.0, 0.1)
FRAMES = 16
LIMIT = 6


@pytest.fixture(scope="module")
def functions() -> dict[str, Any]:
    return runpy.run_path(str(TASK / "sprites.py"))


class Rows:
    """What the task uses of a dataset: a table of columns that a function changes as a batch."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def map(self, function: Callable[[Any], dict[str, list[Any]]], *, batched: bool, remove_columns: list[str]) -> Rows:
        assert batched
        kept = {name: values for name, values in self.columns.items() if name not in remove_columns}
        return Rows(kept | function(self.columns))


def test_the_task_file_names_what_exists(functions: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    named: list[str] = []

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: named.append(node.value) or functions[node.value[8:]])
    task = yaml.load((TASK / "sprites.yaml").read_text(encoding="utf-8"), Loader=Loader)
    assert named and all(name.startswith("sprites.") for name in named)
    assert json.loads((ROOT / task["dataset_kwargs"]["data_files"][task["test_split"]]).read_text("utf-8")) == QUESTIONS
    documents = task["process_docs"](Rows({clip: [items] for clip, items in QUESTIONS.items()})).columns
    count = sum(map(len, QUESTIONS.values()))
    assert {len(documents[name]) for name in ("clip", task["doc_to_text"], task["doc_to_target"])} == {count}
    assert list(task["process_results"]({"answer": "up"}, ["up"])) == [task["metric_list"][0]["metric"]]


def test_documents_are_the_questions_of_all_clips(functions: dict[str, Any]) -> None:
    documents = functions["list_questions"](Rows({clip: [items] for clip, items in QUESTIONS.items()})).columns
    expected = [(clip, one["question"], one["answer"]) for clip, items in QUESTIONS.items() for one in items]
    assert list(zip(*(documents[name] for name in ("clip", "question", "answer")), strict=True)) == expected
    for clip in QUESTIONS:
        (path,) = functions["find_clip"]({"clip": clip})
        assert Path(path).is_file()


def test_answers_are_compared_as_words(functions: dict[str, Any]) -> None:
    compare = functions["compare"]
    assert compare({"answer": "up"}, [" Up "]) == {"accuracy": 1.0}
    assert compare({"answer": "up"}, ["down"]) == compare({"answer": "up"}, [""]) == {"accuracy": 0.0}


def answer_plainly(count: int) -> list[str]:
    """Return what the demo model answers without lmms-eval and without a session."""
    import torch

    from compress.demo import load
    from compress.models.inputs.prompt import prepare, take_clip

    model, tokenizer = load()
    answers = []
    clip, items = next(iter(QUESTIONS.items()))
    taken = take_clip(ROOT / "data" / "sprites" / clip, frames=f"uniform:{FRAMES}")
    for item in items[:count]:
        inputs = prepare(model, taken.frames, item["question"], tokenizer=tokenizer)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        answers.append(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :].tolist()).strip())
    return answers


def evaluate(out: Path, arguments: str, *, task: Path = TASK) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "cli"), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "lmms_eval", "--model", "compress_llava_onevision", "--model_args", arguments]
    command += ["--include_path", str(task), "--tasks", "sprites", "--batch_size", "1", "--limit", str(LIMIT)]
    command += ["--output_path", str(out), "--log_samples", "--verbosity", "DEBUG"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_lmms_eval_runs_it(tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: the task of examples/lmms_eval was NOT run")
    pytest.importorskip("transformers")
    answers, tokens = [], []
    for retention in RETENTIONS:
        out = tmp_path / str(retention)
        arguments = f"pretrained=demo,method=infomerge,retention={retention},frames={FRAMES},device=cpu"
        done = evaluate(out, arguments)
        assert done.returncode == 0, done.stderr[-3000:]
        (results,) = out.rglob("*_results.json")
        (log,) = out.rglob("*_samples_sprites.jsonl")
        samples = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        samples.sort(key=lambda sample: sample["doc_id"])
        answers.append([sample["filtered_resps"] for sample in samples])
        tokens.append([sample["token_counts"][0]["input_tokens"] for sample in samples])
        right = [answer == sample["target"] for answer, sample in zip(answers[-1], samples, strict=True)]
        accuracy = json.loads(results.read_text(encoding="utf-8"))["results"]["sprites"]["accuracy,none"]
        assert accuracy == pytest.approx(sum(right) / LIMIT)
    assert answers[0] == answer_plainly(LIMIT)
    assert all(short < 0.2 * whole for whole, short in zip(*tokens, strict=True))


@pytest.mark.slow
def test_a_failure_is_in_the_exit_code(tmp_path: Path) -> None:
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: the task of examples/lmms_eval was NOT run")
    moved = tmp_path / "elsewhere" / "lmms_eval"
    shutil.copytree(TASK, moved)
    done = evaluate(tmp_path / "out", "pretrained=demo,method=infomerge,frames=2,device=cpu", task=moved)
    assert done.returncode != 0 and f"{LIMIT} of {LIMIT} samples failed, so none are scored" in done.stderr
    assert not list(tmp_path.rglob("*_results.json"))
