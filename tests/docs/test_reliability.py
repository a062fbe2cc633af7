"""Documentation names what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("page", "least"), [("docs/reliability.md", 60), ("SECURITY.md", 15)])
def test_the_tests_that_a_page_names_exist(page: str, least: int) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / page).read_text(encoding="utf-8")))
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = {name for source in sources for name in re.findall(r"^def (test_\w+)", source, flags=re.M)}
    assert len(named) > least
    assert named - there == set()


def test_the_wait_for_kernels_is_the_same_everywhere() -> None:
    places = (
        *("README.md", "CONTRIBUTING.md", "docs/quickstart.md", "docs/format.md", "docs/at-scale.md"),
        *("docs/reliability.md", "codecmeta/batch/doctor.py", "codecmeta/batch/scheduling.py"),
    )
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in places}
    assert [name for name, text in texts.items() if "one to two minutes" not in text or "up to a minute" in text] == []
