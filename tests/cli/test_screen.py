"""What `codecmeta show` prints of records that hold little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from codecmeta_cli.screen import print_json, print_meta

from codecmeta import load
from tests.codecmeta.record.test_meta import record


def test_a_record_with_few_facts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.npz"
    meta = record()
    bare = {**meta.info, "verdict": {}, "source": {"name": "a"}, "extraction": {"block": meta.block}}
    replace(meta, info=bare).save(path)
    print_meta(load(path), path)
    shown = capsys.readouterr().out
    for text in ("length unknown", "bit depth unknown", "no frame rate", "codecmeta unknown"):
        assert text in shown


@pytest.mark.parametrize(("frames", "packets"), [(0, 4), (0, 0)])
def test_a_record_without_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str], frames: int, packets: int) -> None:
    path = tmp_path / "a.npz"
    record(frames, packets).save(path)
    print_meta(load(path), path)
    assert f"{frames} of" in capsys.readouterr().out
    print_json(load(path))
    assert json.loads(capsys.readouterr().out)["arrays"]["frame_pts"]["shape"] == [frames]
