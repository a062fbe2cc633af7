"""`compress bench`: figures, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers")

from codecmeta_cli.compress import app

TINY = "llava-onevision-tiny"


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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
    assert result.stderr.splitlines() == ["warm-up round 1 of 1", "round 1 of 1"]


def test_bench_sets_fields_of_the_methods_that_have_them() -> None:
    command = ("bench", "--random-weights", TINY, "--methods", "metom,infomerge", "--retentions", "0.5",
               "--frames", 2, "--repeats", 1, "--new-tokens", 0, "--json")  # fmt: skip
    plain = json.loads(invoke(*command).stdout)
    result = invoke(*command, "--set", "layers=0,1", "--set", "merge_percent=75")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["settings"] == {"layers": "0,1", "merge_percent": "75"}
    for cases, layer, share in ((plain["cases"], 3, 0.5), (record["cases"], 2, 0.25)):
        _, _, metom, infomerge = cases
        assert metom["merge_layer"] == layer and infomerge["merge_layer"] is None
        assert metom["tokens_inner"] == pytest.approx(share * metom["tokens_out"], abs=1)
    refused = invoke(*command, "--set", "tau_hot=1")
    assert refused.exit_code == 2 and "none of the methods metom, infomerge has a field 'tau_hot'" in refused.stderr


def test_bench_refuses(tmp_path: Path) -> None:
    assert invoke("bench").exit_code == 2
    assert "nonsense" in invoke("bench", "--random-weights", TINY, "--retentions", "nonsense").stderr
    assert "fastest" in invoke("bench", "--random-weights", TINY, "--methods", "fastest").stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--meta", "bad.npz"), "not a readable .npz"),
        (("--meta", "missing.npz"), "missing.npz: No such file"),
        (("--meta", "empty"), "--meta is 'empty', a folder; give one .npz of it"),
        (("--repeats", "0"), "'--repeats'"),
        (("--frames", "0"), "'--frames'"),
        (("--new-tokens", "-1"), "'--new-tokens'"),
        (("--model", "empty"), "'empty' cannot be loaded"),
        (("--frames", "4", "--meta", "bad.npz"), "--frames is for the synthetic video"),
        (("--prompt", " "), "the question is ' '; write one"),
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
