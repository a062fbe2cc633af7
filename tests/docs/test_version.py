"""One version: the package, its distribution and the newest release of the changelog agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from codecmeta_cli.codecmeta import app as codecmeta_app
from codecmeta_cli.compress import app as compress_app
from typer.testing import CliRunner

import codecmeta

ROOT = Path(__file__).resolve().parents[2]


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["dynamic"] == ["version"]
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    releases = [name for name, _ in headings if name != "Unreleased"]
    assert headings[0][0] == "Unreleased"
    assert releases[0] == codecmeta.__version__
    assert releases == sorted(releases, key=lambda name: tuple(map(int, name.split("."))), reverse=True)
    for app in (codecmeta_app, compress_app):
        assert codecmeta.__version__ in CliRunner().invoke(app, ["--version"]).stdout


def test_classifiers_name_the_versions_of_python() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minors = [int(one) for one in re.findall(r"Python :: 3\.(\d+)", " ".join(project["classifiers"]))]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert project["requires-python"] == f">=3.{minors[0]}"
