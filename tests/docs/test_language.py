"""The language of pages and code: plain technical English, without phrasings that readers stumbled over."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PHRASINGS = {
    "to be had": "available",
    "by lot": "random",
    "put out": "output",
    "tell": "say, report, distinguish",
    "what becomes of": "what happens to",
    "guilty": "the cause",
    "there is no X; there are": "unknown X; choose from",
    "anew": "again",
    "held up": "delayed",
    "beside, behind": "next to, after",
    "is at fault": "is wrong",
}
"""An old phrasing, and what to write instead."""

PATTERNS = {
    "to be had": r"\b(?:to be|is|are|not|be) had\b",
    "by lot": r"\bby lots?\b",
    "put out": r"\bputs? out\b",
    "tell": r"\b(?:told|tells? (?:of|nothing|apart|reliably)|nobody told|telling apart)\b",
    "what becomes of": r"\b(?:becomes?|became) of\b",
    "guilty": r"\bguilty\b",
    "there is no X; there are": r"\bthere (?:is|are) no [\w' -]+; there (?:is|are)\b",
    "anew": r"(?<!-)\banew\b",
    "held up": r"\bheld (?:\w+ )?up\b",
    "beside, behind": r"\bbeside\b|\b(?:tokens|padding) behind\b|\bbehind the (?:merge|patch|last)",
    "is at fault": r"\bat fault\b",
}


def pages() -> list[Path]:
    return [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]


def modules() -> list[Path]:
    return sorted(
        path
        for folder in ("codecmeta", "compress", "cli", "data", "examples", "scripts", "bench", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
    )


def prose_of(source: str) -> str:
    """Return the strings, docstrings among them, and comments of a module, but no names inside f-strings."""
    constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return "\n".join([text for text in constants if isinstance(text, str)] + comments)


def count(text: str) -> dict[str, int]:
    """How often each old phrasing stands in a text."""
    found = {name: len(re.findall(pattern, text, re.IGNORECASE)) for name, pattern in PATTERNS.items()}
    return {name: number for name, number in found.items() if number}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_no_old_phrasings(page: Path) -> None:
    assert count(page.read_text(encoding="utf-8")) == {}


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.relative_to(ROOT)))
def test_code_has_no_old_phrasings(module: Path) -> None:
    assert count(prose_of(module.read_text(encoding="utf-8"))) == {}


def test_prose_is_strings_and_comments() -> None:
    assert count(prose_of('beside = told  # put out\nfail(f"it becomes of {told}")\n')) == {
        "put out": 1,
        "what becomes of": 1,
    }


def test_old_phrasings_are_found() -> None:
    assert set(PATTERNS) == set(PHRASINGS)
    assert count("Vectors are not to be had of hevc. Tokens by lot; what became of them is told beside it.") == {
        "to be had": 1,
        "by lot": 1,
        "tell": 1,
        "what becomes of": 1,
        "beside, behind": 1,
    }
    assert count("There is no method 'x'; there are metom and infomerge. What held them up anew?") == {
        "there is no X; there are": 1,
        "anew": 1,
        "held up": 1,
    }
