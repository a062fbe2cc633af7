"""The page about serving: the line that it shows is the one that `compress serve-args` prints."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from codecmeta_cli.compress import app
from typer.testing import CliRunner

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


def test_the_line_of_vllm_is_what_the_command_before_it_prints(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Qwen2_5_VLForConditionalGeneration"]}))
    page = PAGE.read_text()
    (command,) = re.findall(rf"^    compress (serve-args {MODEL} .*)$", page, re.M)
    (line,) = re.findall(rf"^```text\n(vllm serve {MODEL} .*?)^```$", page, re.M | re.S)
    found = CliRunner().invoke(app, shlex.split(command.replace(MODEL, str(tmp_path))))
    assert found.exit_code == 0, found.stderr
    assert shlex.split(found.stdout) == shlex.split(line.replace(MODEL, str(tmp_path)).replace("\\\n", ""))
