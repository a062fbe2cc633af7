"""The JSON Schema of the `--json` lines describes the lines that the commands write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from codecmeta import extract
from codecmeta.errors import SourceCode

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: JSON lines were NOT validated")

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "docs" / "reference" / "json-lines.schema.json").read_text(encoding="utf-8")
)


def validator(name: str) -> Any:
    return jsonschema.Draft202012Validator({**SCHEMA["$defs"][name], "$schema": SCHEMA["$schema"]})


def lines(app: Any, *words: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(app, list(words))
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "videos").mkdir()
    shutil.copy(data / "still_h264.mp4", folder / "videos")
    (folder / "videos" / "text.mp4").write_text("no video")
    return folder


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["$defs"]["extract"]["properties"]["code"]["enum"]) == {"", *get_args(SourceCode)}


def test_lines_of_both_commands(meta: Path) -> None:
    from codecmeta_cli.codecmeta import app as codecmeta
    from codecmeta_cli.compress import app as compress

    out = str(meta / "meta")
    written = {
        "extract": [
            *lines(
                codecmeta,
                "extract",
                str(meta / "videos"),
                "--out",
                out,
                "--jobs",
                "0",
                "--frames",
                "uniform:2",
                "--json",
            ),
            *lines(
                codecmeta,
                "extract",
                str(meta / "videos"),
                "--out",
                out,
                "--jobs",
                "0",
                "--frames",
                "uniform:2",
                "--json",
            ),
        ],
        "verify": lines(codecmeta, "verify", out, "--jobs", "0", "--json"),
    }
    (meta / "meta" / "broken.npz").write_bytes(b"no archive")
    run = ("run", "--meta", out, "--out", str(meta / "tokens"), "--json")
    written["run"] = [*lines(compress, *run), *lines(compress, *run)]
    written["compare"] = lines(compress, "compare", "--meta", out, "--retention", "0.1", "--repeats", "1", "--json")
    seen = {name: {line["status"] for line in found} for name, found in written.items()}
    assert seen == {
        "extract": {"done", "kept", "failed"},
        "verify": {"sound", "failed"},
        "run": {"done", "kept", "failed"},
        "compare": {"done", "failed", "omitted"},
    }
    for name, found in written.items():
        for line in found:
            validator(name).validate(line)


def test_lines_of_models(meta: Path, data: Path) -> None:
    pytest.importorskip("transformers")
    from codecmeta_cli.compress import app

    folder = meta / "asked"
    folder.mkdir()
    extract(data / "still_h264.mp4", frames="uniform:2", pixels=96).save(folder / "still.mp4.npz")
    (folder / "broken.npz").write_bytes(b"no archive")
    model = ("--meta", str(folder), "--random-weights", "qwen2-vl-tiny", "--json")
    written = {
        "ask": lines(app, "ask", *model, "--prompt", "What?", "--new-tokens", "1"),
        "run": lines(app, "run", *model, "--out", str(meta / "of_model")),
        "compare": lines(app, "compare", *model, "--prompt", "What?", "--methods", "stride", "--retention", "0.1"),
    }
    for name, found in written.items():
        assert list(dict.fromkeys(line["status"] for line in found)) == ["failed", "done"]
        for line in found:
            validator(name).validate(line)


def test_lines_of_answers(meta: Path, data: Path) -> None:
    pytest.importorskip("transformers")
    from codecmeta_cli.codecmeta import app as codecmeta
    from codecmeta_cli.compress import app as compress

    out = str(meta / "sprites")
    lines(
        codecmeta,
        "extract",
        str(data / "sprites" / "sprites_07.mp4"),
        "--out",
        out,
        "--jobs",
        "0",
        "--frames",
        "uniform:16",
    )
    (line,) = lines(compress, "ask", "--meta", out, "--model", "demo", "--prompt", "which digit was shown ?", "--json")
    validator("ask").validate(line)
    assert line["answer"]


def test_a_line_with_an_unknown_key_or_a_wrong_type_is_refused() -> None:
    line = {
        "source": "a", "meta": "a.npz", "status": "done", "code": "", "message": "", "verdict": "complete",
        "warnings": [], "frames": 1, "packets": 1, "gops": 1, "residual": None, "seconds": 0.1,
    }  # fmt: skip
    check = validator("extract")
    assert check.is_valid(line)
    for wrong in (
        {**line, "new": 1},
        {**line, "frames": "1"},
        {**line, "verdict": "fine"},
        {**line, "status": "failed"},
        {**line, "code": "damaged"},
    ):
        assert not check.is_valid(wrong)
