"""`compress ask` and `compress run --model`: answers, tokens of a model, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers")

from codecmeta_cli.compress import app

import codecmeta
from compress import read_tokens

TINY = "llava-onevision-tiny"


@pytest.fixture(scope="module")
def metas(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("meta")
    for name in ("still_h264.mp4", "event_h264.mp4"):
        codecmeta.extract(data / name, frames="uniform:4", pixels=96).save(folder / f"{name}.npz")
    return folder


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("config", [TINY, "qwen2-vl-tiny"])
def test_a_model_answers_about_every_video(metas: Path, config: str) -> None:
    (metas / "broken.npz").write_bytes(b"no archive")
    try:
        result = invoke(
            "ask", "--meta", metas, "--random-weights", config, "--prompt", "What?", "--retention", 0.4,
            "--new-tokens", 5, "--json",
        )  # fmt: skip
    finally:
        (metas / "broken.npz").unlink()
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["video"] for line in lines] == ["broken", "event_h264.mp4", "still_h264.mp4"]
    assert [line["status"] for line in lines] == ["failed", "done", "done"]
    for line in lines[1:]:
        assert 0 < line["tokens_out"] <= round(0.4 * line["tokens_in"]) and sum(line["budgets"]) == line["tokens_out"]
        assert set(line["seconds"]) >= {"load", "prepare", "tower", "compress", "prefill", "ttft", "answer"}
        assert line["sources"]["density"] == "texture"


def test_videos_are_extracted_while_the_model_answers(tmp_path: Path, data: Path) -> None:
    for name in ("still_h264.mp4", "event_h264.mp4"):
        shutil.copy(data / name, tmp_path / name)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    command = (
        "ask", tmp_path, "--meta", tmp_path / "meta", "--random-weights", TINY, "--prompt", "What?",
        "--new-tokens", 2, "--json",
    )  # fmt: skip
    again = []
    for _ in range(2):
        result = invoke(*command)
        assert result.exit_code == 1
        lines = sorted((json.loads(line) for line in result.stdout.splitlines()), key=lambda line: line["video"])
        assert [line["status"] for line in lines] == ["failed", "done", "done"]
        assert [line["video"] for line in lines[1:]] == ["event_h264.mp4", "still_h264.mp4"]
        assert all(set(line["seconds"]) > {"extract", "load", "answer"} for line in lines[1:])
        again.append({line["video"]: line["answer"] for line in lines[1:]})
    assert again[0] == again[1]
    records = {path.name for path in (tmp_path / "meta").glob("*.npz")}
    assert records == {"event_h264.mp4.npz", "still_h264.mp4.npz"}
    # Records that are there answer alike, without the videos.
    lines = [json.loads(line) for line in invoke(command[0], *command[2:]).stdout.splitlines()]
    assert {line["video"]: line["answer"] for line in lines} == again[0]
    refused = invoke("ask", tmp_path / "*.mkv", *command[2:])
    assert refused.exit_code == 2 and "mkv" in refused.stderr
    (tmp_path / "file").touch()
    unwritten = invoke(*command[:3], tmp_path / "file" / "meta", *command[4:])
    assert unwritten.exit_code == 3
    assert unwritten.stderr.splitlines()[-1].startswith(f"compress: output folder {tmp_path}/file/meta: ")


def test_what_extract_warns_of_is_in_the_answer(data: Path, tmp_path: Path) -> None:
    """Both when a record is made and when it is there; and nothing of a sound file."""
    video = (data / "still_h264.mp4").read_bytes()
    (tmp_path / "joined.mp4").write_bytes(video + video)
    (tmp_path / "sound.mp4").write_bytes(video)
    command = ("ask", tmp_path, "--meta", tmp_path / "meta", "--random-weights", TINY, "--prompt", "What?",
               "--new-tokens", 1, "--json")  # fmt: skip
    for _ in range(2):
        messages = {line["video"]: line["message"] for line in map(json.loads, invoke(*command).stdout.splitlines())}
        assert "the file is damaged" in messages["joined.mp4"]
        assert messages["sound.mp4"] == ""


def test_answers_for_people(metas: Path) -> None:
    result = invoke(
        "ask",
        "--meta",
        metas,
        "--random-weights",
        TINY,
        "--prompt",
        "What?",
        "--method",
        "infomerge",
        "--new-tokens",
        3,
    )
    assert result.exit_code == 0
    assert "event_h264.mp4: " in result.stdout and "tokens" in result.stdout


def ask(meta: Path, *more: object) -> Any:
    return invoke(
        "ask", "--meta", meta, "--random-weights", "qwen2-vl-tiny", "--prompt", "What?", "--new-tokens", 2, *more
    )


def test_answers_account_for_what_was_merged(metas: Path) -> None:
    one, _ = map(json.loads, ask(metas, "--json").stdout.splitlines())
    merges = one["merges"]
    assert one["frames"] == 2 and one["message"] == ""
    assert merges["patches_encoded"] < merges["patches_in"] and merges["tokens_inside"] < one["tokens_out"]
    text = ask(metas).stdout
    assert f"{one['tokens_in']} -> {one['tokens_out']} -> {merges['tokens_inside']} tokens" in text
    assert "% of the patches" in text


def test_answers_account_for_cuts_and_steps(metas: Path) -> None:
    one, _ = map(json.loads, ask(metas, "--method", "d2pruner", "--set", "K=2", "--json").stdout.splitlines())
    assert one["sources"]["prior"] == "none (none given)" and one["sources"]["attention"] == "layers 1 of 4"
    assert one["merges"]["tokens_inside"] == round(0.1 * one["tokens_out"])
    one, _ = map(
        json.loads, ask(metas, "--method", "dycoke-decoding", "--retention", 0.25, "--json").stdout.splitlines()
    )
    assert one["merges"] == {"tokens_read": round(0.25 * one["tokens_out"])}
    assert (
        f"{one['merges']['tokens_read']} of them read by the last step"
        in ask(metas, "--method", "dycoke-decoding", "--retention", 0.25).stdout
    )


@pytest.mark.parametrize("method", ["rpm", "metom"])
def test_patches_that_are_not_merged_are_told(metas: Path, method: str) -> None:
    options = ("--method", method, "--map", "none")
    for line in map(json.loads, ask(metas, *options, "--json").stdout.splitlines()):
        assert line["message"] == "RPM skipped: map is none" and line["frames"] == 2
        assert "patches_in" not in line["merges"]
    assert "RPM skipped: map is none" in ask(metas, *options).stdout


def test_a_retention_too_low_for_one_video_fails_that_one(tmp_path: Path, data: Path) -> None:
    for side in (32, 96):
        codecmeta.extract(data / "still_h264.mp4", frames="uniform:2", pixels=side).save(tmp_path / f"{side}.npz")
    result = ask(tmp_path, "--json", "--retention", 0.01)
    assert result.exit_code == 1
    small, large = map(json.loads, result.stdout.splitlines())
    assert small["status"] == "failed" and "leaves none; use at least" in small["message"]
    assert large["status"] == "done"


def test_a_fault_of_ours_does_not_stop_the_other_videos(metas: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise IndexError("no such thing")

    monkeypatch.setattr("compress.models.answer.prepare", fail)
    result = ask(metas, "--json")
    assert result.exit_code == 1
    messages = [json.loads(line)["message"] for line in result.stdout.splitlines()]
    assert messages == 2 * ["internal error, please report it: IndexError: no such thing"]


def test_the_metadata_is_looked_for_before_the_model_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr("compress.models.opening.open_model", load)
    result = ask(tmp_path / "nowhere")
    assert result.exit_code == 2 and "it does not exist" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--random-weights", TINY], "--prompt"),
        (["--prompt", "What?"], "--model"),
        (["--prompt", "What?", "--random-weights", "nothing-tiny"], "nothing-tiny"),
        (["--prompt", "What?", "--random-weights", TINY, "--model", "x"], "either"),
        (["--prompt", "What?", "--model", "./no-such-folder"], "no-such-folder"),
        (["--prompt", "What?", "--random-weights", TINY, "--set", "layers=9"], "4 decoder layers"),
        (["--prompt", "What?", "--random-weights", TINY, "--new-tokens", "0"], "'--new-tokens'"),
        (["--prompt", " ", "--random-weights", TINY], "the question is ' '; write one"),
        (["--prompt", "What?", "--random-weights", TINY, "--out", "x"], "--out"),
    ],
)
def test_wrong_questions(metas: Path, arguments: list[str], message: str) -> None:
    result = invoke("ask", "--meta", metas, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_run_with_a_model_writes_its_tokens(metas: Path, tmp_path: Path) -> None:
    (metas / "broken.npz").write_bytes(b"no archive")
    command = ("run", "--meta", metas, "--out", tmp_path, "--random-weights", "qwen2-vl-tiny", "--json", "--plot")
    try:
        result, again = invoke(*command), invoke(*command)
    finally:
        (metas / "broken.npz").unlink()
    assert result.exit_code == 1
    broken, *done = map(json.loads, result.stdout.splitlines())
    assert broken["status"] == "failed"
    assert [json.loads(line)["status"] for line in again.stdout.splitlines()] == ["failed", "kept", "kept"]
    keys = {"video", "method", "retention", "frames", "tokens_in", "tokens_out", "budgets", "seconds", "out"}
    for one in done:
        assert keys <= set(one)
        file = read_tokens(one["out"])
        assert file.tokens.shape == (round(0.3 * one["tokens_in"]), 64)
        assert file.positions.shape == (3, one["tokens_out"])
        assert one["sources"]["inside_llm"] == "skipped: there is no question"
        assert Path(one["picture"]).read_bytes().startswith(b"\x89PNG")
        assert {"load", "encode", "compress", "save"} <= set(one["seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "What?", "--random-weights", TINY], "compress ask --prompt TEXT"),
        (["--prompt", "What?"], "compress ask --prompt TEXT"),
        (["--random-weights", TINY, "--model", "x"], "either"),
        (["--random-weights", "nothing-tiny"], "nothing-tiny"),
        (["--model", "./no-such-folder"], "no-such-folder"),
        (["--random-weights", TINY, "--method", "matm"], "no stage before the language model"),
        (["--random-weights", TINY, "--set", "layers=9"], "4 decoder layers"),
        (["--random-weights", TINY, "--device", "abacus"], "abacus"),
        (["--new-tokens", "5"], "--new-tokens"),
    ],
)
def test_wrong_runs(metas: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke("run", "--meta", metas, "--out", tmp_path / "tokens", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not list((tmp_path / "tokens").rglob("*.safetensors"))
