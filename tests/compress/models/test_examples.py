"""The examples run."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

EXAMPLES = Path(__file__).parents[3] / "examples"

ARGUMENTS = {
    "generate.py": (["still_h264.mp4", "What?"], "llava-onevision-tiny", r"144 visual tokens became \d+"),
    "batch.py": (["still_h264.mp4", "event_h264.mp4"], "llava-video-tiny", r"What moves, .*-> \d+ tokens"),
    "chat.py": (["event_h264.mp4", "What?", "And then?"], "qwen3-vl-tiny", r"> And then\?[\s\S]*positions"),
    "qwen2_vl.py": (["event_h264.mp4", "What?"], "qwen2-vl-tiny", r"patches (\d+) -> (\d+)\n.*-> \d+ -> \d+"),
    "own_method.py": (["event_h264.mp4"], "llava-onevision-tiny", r"72 -> 14 tokens, per frame: \[\d+, "),
}


def test_every_example_is_run() -> None:
    # need no model, or a server: tests/codecmeta/test_bit_cost_maps.py, tests/docs/test_gallery.py, tests/serving
    elsewhere = ["bit_costs.py", "send_embeddings.py", "webdataset_shards.py"]
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted([*ARGUMENTS, *elsewhere])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words, config, expected = ARGUMENTS[name]
    words = [str(data / word) if word.endswith(".mp4") else word for word in words]
    monkeypatch.setattr(sys, "argv", [name, *words, "--random-weights", config])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert re.search(expected, capsys.readouterr().out)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_without_weights_an_example_says_what_is_missing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *ARGUMENTS[name][0]])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    assert "one of the arguments --model --random-weights is required" in capsys.readouterr().err
