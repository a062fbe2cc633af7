"""Sizes of the files and functions of both packages, and what the type checker is asked to pass over."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MEDIAN, FILE, FUNCTION, SILENCED = 140, 400, 80, 20
"""Most lines of the median file, of any file, of any function that is no kernel; and what the count of silenced type
errors stays below."""

COMPILERS = {"kernel", "entry", "compiled", "inlined", "intrinsic"}
"""Decorators of functions that numba compiles, or that write its intermediate code."""

FILES = {name: sorted((ROOT / name).rglob("*.py")) for name in ("codecmeta", "compress")}


def compilers(node: ast.FunctionDef) -> set[str]:
    """Return the decorators of a function that make it a kernel."""
    return {name for one in node.decorator_list if (name := ast.unparse(one).partition("(")[0]) in COMPILERS}


def long_functions(source: str) -> Iterator[str]:
    """Functions that are no kernels and have too many lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and not compilers(node):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION:
                yield f"{node.name}: {lines} lines"


def untyped_modules() -> list[str]:
    """Modules whose functions need no annotations, as pyproject.toml says."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    return [name for one in settings if one.get("disallow_untyped_defs") is False for name in one["module"]]


@pytest.mark.parametrize("package", FILES)
def test_files_are_short(package: str) -> None:
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_bytes().splitlines()) for path in FILES[package]}
    assert {name: count for name, count in lines.items() if count > FILE} == {}
    assert statistics.median(lines.values()) <= MEDIAN


@pytest.mark.parametrize("package", FILES)
def test_functions_are_short(package: str) -> None:
    paths = FILES[package]
    long = {path.name: found for path in paths if (found := list(long_functions(path.read_text(encoding="utf-8"))))}
    assert long == {}


def test_long_functions_are_found() -> None:
    body = "    x = 1\n" * FUNCTION
    assert list(long_functions(f"class A:\n  def f(self):\n{body}")) == [f"f: {FUNCTION + 1} lines"]
    assert list(long_functions(f"@kernel(_nrt=False)\ndef f():\n{body}")) == []


@pytest.mark.parametrize("name", untyped_modules())
def test_modules_without_annotations_hold_kernels_only(name: str) -> None:
    tree = ast.parse(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions
    assert [node.name for node in functions if not compilers(node)] == []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes if "NamedTuple" not in map(ast.unparse, node.bases)] == []


def test_few_type_errors_are_silenced() -> None:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    comment = re.compile(r"#\s*type:\s*ignore")
    files = [ROOT / name for name in listed.stdout.split() if (ROOT / name).exists()]
    silenced = [str(path) for path in files for _ in comment.findall(path.read_text(encoding="utf-8"))]
    assert len(files) > 100
    assert len(silenced) < SILENCED, silenced
