"""The Dockerfile: what it copies exists and reaches the build, and what it starts is installed."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import typer
from codecmeta_cli.codecmeta import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def reaches_the_build(path: str) -> bool:
    return (ROOT / path).exists() and not any(path == one or path.startswith(f"{one}/") for one in IGNORED)


def test_what_the_wheel_is_made_of_reaches_the_build() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    files = [PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"]
    for path in [*wheel, *files]:
        assert reaches_the_build(path), path
    assert not reaches_the_build("bench/results")


def test_commands_of_the_build_exist() -> None:
    named = re.findall(r"^RUN codecmeta (\w+) ([^\n\\]*)", DOCKERFILE, re.MULTILINE)
    assert named
    group: Any = typer.main.get_command(app)
    for command, words in named:
        group.commands[command].make_context(command, shlex.split(words))


def test_the_command_and_the_extras_exist() -> None:
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE)
    assert set(json.loads(entry)) <= set(PROJECT["project"]["scripts"])
    (extras,) = re.findall(r"^ARG EXTRAS=\[(.*)\]$", DOCKERFILE, re.MULTILINE)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    (minor,) = set(re.findall(r"^FROM python:3\.(\d+)-slim", DOCKERFILE, re.MULTILINE))
    assert f"Programming Language :: Python :: 3.{minor}" in PROJECT["project"]["classifiers"]
