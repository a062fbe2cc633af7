"""What is said of a machine."""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
from pathlib import Path

import pytest
from codecmeta_cli.codecmeta import app
from typer.testing import CliRunner

from codecmeta.batch import doctor


def test_every_piece_has_a_price_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {(fact.group, fact.name): fact for fact in doctor.examine()}
    assert facts["versions", "numpy"].value == importlib.metadata.version("numpy")
    assert facts["decoders", "h264"].state == "ok"
    assert int(facts["kernels", "compiled"].value.split()[2]) > 50
    assert all(bool(fact.cost) == (fact.state != "ok") for fact in facts.values())
    monkeypatch.setattr(doctor, "_has_codec", lambda name, mode: name not in ("hevc", "libx264"))
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "torch" else "1")
    worse = {(fact.group, fact.name): fact for fact in doctor.examine()}
    assert worse["decoders", "hevc"].state == "missing"
    assert "decoder_missing" in worse["decoders", "hevc"].cost
    assert worse["encoders", "libx264"].state == "absent"
    assert "pip install 'codecmeta[compress]'" in worse["extras", "compress"].cost


def test_every_extra_of_the_package_is_examined() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    users = set(project["optional-dependencies"]) - {"dev", "dev-scale", "docs"}
    assert {fact.name for fact in doctor.examine() if fact.group == "extras"} == users


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = [
        doctor.Fact(group="decoders", name="h264", state="ok", value="there"),
        doctor.Fact(group="decoders", name="hevc", state="missing", value="not there", cost="another build of PyAV"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: iter(facts))
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert [json.loads(line)["name"] for line in result.stdout.splitlines()] == ["h264", "hevc"]
    assert result.exit_code == 1
    assert "another build of PyAV" in CliRunner().invoke(app, ["doctor"]).stdout
    monkeypatch.setattr(doctor, "examine", lambda: iter(facts[:1]))
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
