"""The site: it builds strictly and offline, holds every page and public name, and asks no other host for anything."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

OFFLINE = """
import socket
def refuse(*args, **kwargs):
    raise OSError("the build may not use a network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from mkdocs.__main__ import cli
cli()
"""

LOADS = {
    *((tag, "src") for tag in ("script", "img", "source", "iframe", "video", "audio", "embed")),
    *((tag, "href") for tag in ("link", "image", "use")),
    *((tag, "srcset") for tag in ("img", "source")),
    ("object", "data"),
    ("form", "action"),
}
"""What a browser fetches without a click."""

FOREIGN = re.compile(r"^\s*(?:[a-z]+:)?//", re.IGNORECASE)


class Loads(HTMLParser):
    """Addresses that a page loads, in its elements and in its styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) in LOADS and value:
                self.found.append(value)
            elif name == "style" and value:
                self.found += style_loads(value)


def style_loads(text: str) -> list[str]:
    """Addresses that a style sheet loads."""
    return re.findall(r"url\(\s*[\"']?([^\"')\s]+)", text) + re.findall(r"@import\s+[\"']([^\"']+)", text)


def foreign_loads(path: Path) -> list[str]:
    """Addresses of other hosts that a file of the site loads."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return [one for one in style_loads(text) if FOREIGN.match(one)]
    inline = [one for block in re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL) for one in style_loads(block)]
    return [one for one in Loads(text).found + inline if FOREIGN.match(one)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip(
        "mkdocstrings", reason="mkdocs is not installed: the site was NOT built; install the extra docs"
    )
    folder = tmp_path_factory.mktemp("site")
    environment = {
        **os.environ,
        "NO_MKDOCS_2_WARNING": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_pages_load_nothing_from_other_hosts(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(files) > 15
    assert {path.name: found for path in files if (found := foreign_loads(path))} == {}


def test_foreign_loads_are_found(tmp_path: Path) -> None:
    page, style = tmp_path / "page.html", tmp_path / "style.css"
    page.write_text(
        '<link href="https://a.example/x.css"><img src="//b.example/x.png"><a href="https://c.example">c</a>'
        "<style>@import 'https://d.example/d.css';</style><p style=\"background: url(https://e.example/e.png)\">"
    )
    style.write_text('a { src: url("https://f.example/f.woff2") } b { background: url(data:image/png;base64,) }')
    hosts = sorted(re.findall(r"//(\w)\.example", " ".join(foreign_loads(page))))
    assert hosts == ["a", "b", "d", "e"]
    assert foreign_loads(style) == ["https://f.example/f.woff2"]


def test_every_page_is_built(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 12
    for page in pages:
        assert (site / page.with_suffix(".html")).is_file()


@pytest.mark.parametrize("package", ["codecmeta", "compress"])
def test_the_reference_holds_every_public_name(site: Path, package: str) -> None:
    page = (site / "reference" / f"{package}.html").read_text(encoding="utf-8")
    shown = {one.rsplit(".", 1)[-1] for one in re.findall(r'<h\d id="([\w.]+)" class="doc doc-heading"', page)}
    assert set(importlib.import_module(package).__all__) - shown == set()


def test_the_reference_holds_every_command(site: Path) -> None:
    page = (site / "reference" / "command-line.html").read_text(encoding="utf-8")
    for command in ("codecmeta extract", "codecmeta verify", "codecmeta show", "compress run", "compress bench"):
        assert f">{command}<" in page
    for option in ("--frames", "--retention", "--no-square-pixels", "--set"):
        assert f"<code>{option}</code>" in page
