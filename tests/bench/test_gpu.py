"""The accelerator's script on a processor: every case, figures as they come, a limit of time."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from bench import gpu, gpu_table
from compress.models.session.forward import Forward
from compress.profiling.measure import Case, Null


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "measure_extraction", partial(gpu.measure_extraction, repeats=1))


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str, fails: bool = False) -> dict[str, Any]:
    command = ["gpu", "--device", "cpu", "--frames", "4", "--warmup", "0", "--new-tokens", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--compile", "off", *options])
    with pytest.raises(SystemExit, match="1") if fails else nullcontext():
        gpu.main()
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_all_cases_of_both_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = ("llava-onevision-tiny", "qwen2-vl-tiny")
    found = run(monkeypatch, tmp_path / "gpu.json", "--repeats", "1", "--models", *models)
    assert found["complete"] and list(found["models"]) == list(models)
    for record in found["models"].values():
        assert record["failures"] == {}
        names = [case["name"] for case in record["cases"]]
        assert {"null", "metom 0.3", "rpm+btm 0.3", "btm+matm 0.3", "rpm 0.5+infomerge 0.15+matm"} < set(names)
        cases = dict(zip(names, record["cases"], strict=True))
        assert cases["rpm+btm 0.3"]["patches"] < 1 == cases["btm 0.3"]["patches"]
        assert cases["btm+matm 0.3"]["tokens_inner"] < cases["btm+matm 0.3"]["tokens_out"]
        assert set(record["prefill_floor_seconds"]) == set(names)
        assert {"metom 0.5", "metom 0.3, patches too", "cover 0.15", "evs 0.15", "infomerge 0.05"} < set(names)
        assert {"metom 0.3: ttft", "infomerge 0.1: prefill", "null: prefill over floor"} < set(record["goals"])
    assert found["commit"] and found["ceilings"]["flops"] > 0
    spent = found["extraction"]["seconds"]
    assert spent["pixels"] > 0 and spent["pixels and metadata"] > 0
    assert {row["method"] for row in found["methods"]} > {"infomerge, fast", "btm"}
    table = gpu_table.render(found)
    for record in found["models"].values():
        for case in record["cases"]:
            assert f"| {case['name']} | {case['tokens_out']}" in table
    assert f"commit {found['commit']}" in table and "4 frames, " in table


def test_compiled_layers_are_called_in_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []

    def compile_nothing(forward: Any, *, dynamic: bool) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(dynamic)
            return forward(*args, **options)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    plain = Case(name="uncompressed", compressor=None)
    monkeypatch.setattr(gpu, "build_cases", lambda depth: [plain])
    options = ("--repeats", "1", "--models", "llava-onevision-tiny")
    assert not run(monkeypatch, tmp_path / "plain.json", *options)["models"]["llava-onevision-tiny"]["compiled"]
    assert not calls
    with torch._dynamo.config.patch(recompile_limit=8):
        found = run(monkeypatch, tmp_path / "compiled.json", "--compile", "on", *options)
        assert torch._dynamo.config.recompile_limit == 4 * 8
    assert list(found["models"]) == ["llava-onevision-tiny, compiled"]
    assert found["models"]["llava-onevision-tiny, compiled"]["compiled"]
    # Tried with a prompt, and with a prompt and a token; so too when measured; four layers.
    assert calls == [True] * 4 * 2 * (1 + 2)
    calls.clear()
    with torch._dynamo.config.patch(recompile_limit=8):
        found = run(monkeypatch, tmp_path / "both.json", "--compile", "both", *options)
    assert list(found["models"]) == ["llava-onevision-tiny", "llava-onevision-tiny, compiled"]
    assert [record["compiled"] for record in found["models"].values()] == [False, True]
    assert calls == [True] * 4 * 2 * (1 + 2)


class Broken:
    """Cannot be attached."""

    def attach(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no such kernel")


def test_a_run_without_time_or_with_a_broken_case_leaves_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, rounds = tmp_path / "gpu.json", []
    plain, write = Case(name="uncompressed", compressor=None), gpu.write
    monkeypatch.setattr(gpu, "build_cases", lambda depth: [plain, Case(name="broken", compressor=Broken())])
    monkeypatch.setattr(gpu, "write", lambda result, path: (rounds.append(result["complete"]), write(result, path)))
    found = run(monkeypatch, out, "--repeats", "5", "--seconds", "0", "--models", "llava-onevision-tiny", fails=True)
    record = found["models"]["llava-onevision-tiny"]
    # The failure, then one round although there was no time, written before the end.
    assert rounds == [False, False, True]
    assert record["failures"] == {"broken": "RuntimeError: no such kernel"}
    assert [case["name"] for case in record["cases"]] == ["uncompressed"]
    run(monkeypatch, out, "--repeats", "3", "--models", "llava-onevision-tiny", fails=True)
    assert rounds[3:] == [False] * 4 + [True]

    def cut(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    ceilings = gpu.measure_ceilings
    calls: list[int] = []
    monkeypatch.setattr(gpu, "measure_ceilings", lambda *a: cut() if calls else (calls.append(1), ceilings(*a))[1])
    out.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, out, "--repeats", "1", "--models", "llava-onevision-tiny")
    left = json.loads(out.read_text())
    assert not left["complete"] and left["models"]["llava-onevision-tiny"]["cases"]


def test_a_case_that_breaks_in_decoding_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such mask")

    cases = [Case(name="uncompressed", compressor=None), Case(name="null", compressor=Null())]
    monkeypatch.setattr(gpu, "build_cases", lambda depth: cases)
    monkeypatch.setattr(Forward, "_continue", broken)
    found = run(monkeypatch, tmp_path / "gpu.json", "--repeats", "1", "--models", "llava-onevision-tiny", fails=True)
    record = found["models"]["llava-onevision-tiny"]
    assert record["failures"] == {"null": "RuntimeError: no such mask"}
    assert [case["name"] for case in record["cases"]] == ["uncompressed"]


def test_a_model_that_fails_does_not_end_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = gpu.build_random

    def build_one(name: str, **options: Any) -> Any:
        if name == "qwen2-vl-tiny":
            raise RuntimeError("out of memory")
        return build(name, **options)

    monkeypatch.setattr(gpu, "build_random", build_one)
    monkeypatch.setattr(gpu, "build_cases", lambda depth: [Case(name="uncompressed", compressor=None)])
    models = ("qwen2-vl-tiny", "llava-onevision-tiny")
    found = run(monkeypatch, tmp_path / "gpu.json", "--repeats", "1", "--models", *models, fails=True)
    assert found["models"]["qwen2-vl-tiny"] == {"failures": {"model": "RuntimeError: out of memory"}}
    assert found["models"]["llava-onevision-tiny"]["cases"]
