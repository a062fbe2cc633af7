"""The reference pages ask for every exported name, whether or not the site is built."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("package", ["codecmeta", "compress"])
def test_every_exported_name_is_on_its_page(package: str) -> None:
    page = (PAGES / f"{package}.md").read_text(encoding="utf-8")
    asked = set(re.findall(rf"^::: {package}\.(\w+)$", page, re.MULTILINE))
    exported = set(importlib.import_module(package).__all__)
    assert exported - asked == set()
    assert asked - exported <= {"baselines"}
