"""The commands of `compress` that need a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers")

from codecmeta_cli.compress import app

import codecmeta

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
            "run", "--meta", metas, "--random-weights", config, "--prompt", "What?", "--retention", 0.4,
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


def test_answers_for_people(metas: Path) -> None:
    result = invoke(
        "run",
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
        "run", "--meta", meta, "--random-weights", "qwen2-vl-tiny", "--prompt", "What?", "--new-tokens", 2, *more
    )


def test_answers_account_for_what_was_merged(metas: Path) -> None:
    one, _ = map(json.loads, ask(metas, "--json").stdout.splitlines())
    merges = one["merges"]
    assert one["frames"] == 2 and one["message"] == ""
    assert merges["patches_encoded"] < merges["patches_in"] and merges["tokens_inside"] < one["tokens_out"]
    text = ask(metas).stdout
    assert f"{one['tokens_in']} -> {one['tokens_out']} -> {merges['tokens_inside']} tokens" in text
    assert "% of the patches" in text


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

    monkeypatch.setattr("compress.models.answer.open_model", load)
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
        (["--prompt", "What?", "--random-weights", TINY, "--plot", "--out", "x"], "leave out --out, --plot"),
        (
            ["--prompt", "What?", "--random-weights", TINY, "--html", "x", "--overwrite"],
            "leave out --html, --overwrite",
        ),
        (["--prompt", "", "--random-weights", TINY], "--prompt is ''; write a question"),
        (["--new-tokens", "5"], "--new-tokens is for answers; give --model"),
    ],
)
def test_wrong_usage(metas: Path, arguments: list[str], message: str) -> None:
    result = invoke("run", "--meta", metas, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_bench(tmp_path: Path) -> None:
    out, plot = tmp_path / "figures" / "b.json", tmp_path / "b.png"
    result = invoke(
        "bench", "--random-weights", TINY, "--methods", "metom,infomerge", "--retentions", "0.3", "--frames", 4,
        "--repeats", 1, "--new-tokens", 2, "--out", out, "--plot", plot, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record == json.loads(out.read_text())
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert [case["name"] for case in record["cases"]] == ["uncompressed", "null", "metom 0.3", "infomerge 0.3"]
    plain, null, metom, infomerge = record["cases"]
    assert plain["tokens_in"] == plain["tokens_out"] == null["tokens_out"] == 36
    assert infomerge["tokens_out"] == round(0.3 * 36) and metom["tokens_inner"] < metom["tokens_out"] <= 11
    assert metom["patches"] < 1 == null["patches"]
    assert infomerge["macs"] < plain["macs"] == null["macs"]
    for case in record["cases"]:
        stages = case["seconds"]
        parts = sum(value for name, value in stages.items() if name != "ttft")
        assert parts == pytest.approx(stages["ttft"], rel=1e-6)
    assert "TTFT" in record["ttft"]
    assert "uncompressed" in invoke("bench", "--random-weights", TINY, "--methods", "metom", "--retentions", "0.3",
                                    "--frames", 2, "--repeats", 1).stdout  # fmt: skip


def test_bench_says_once_per_method_which_layers_it_reads() -> None:
    result = invoke("bench", "--random-weights", TINY, "--methods", "metom,infomerge,matm", "--retentions", "0.5,0.3",
                    "--frames", 2, "--repeats", 1, "--new-tokens", 0)  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("attention is read at layers (1, 2) of 4") == 2


def test_bench_refuses(tmp_path: Path) -> None:
    assert invoke("bench").exit_code == 2
    assert "nonsense" in invoke("bench", "--random-weights", TINY, "--retentions", "nonsense").stderr
    assert "fastest" in invoke("bench", "--random-weights", TINY, "--methods", "fastest").stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--meta", "bad.npz"), "not a readable .npz"),
        (("--meta", "missing.npz"), "missing.npz cannot be read: No such file"),
        (("--repeats", "0"), "--repeats is 0; it must be at least 1"),
        (("--frames", "0"), "--frames is 0"),
        (("--new-tokens", "-1"), "--new-tokens is -1"),
        (("--model", "empty"), "'empty' cannot be loaded"),
        (("--frames", "4", "--meta", "bad.npz"), "--frames is for the synthetic video"),
        (("--prompt", " "), "--prompt is ' '; write a question"),
        (("--plot", "a.nothing"), "its ending is its format"),
        (("--out", "empty"), "--out is 'empty', a folder"),
        (("--device", "nowhere"), "nowhere"),
        (("--device", "cuda:99"), "cuda:99"),
    ],
)
def test_bench_refuses_in_one_line(
    options: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    model = () if "--model" in options else ("--random-weights", "llava-onevision-tiny")
    result = invoke("bench", *model, *options)
    assert result.exit_code == 2, result.output
    assert says in result.stderr and "Traceback" not in result.stderr
