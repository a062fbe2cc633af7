"""The page: one file, whose figures, names and pictures survive any text."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np

from compress.comparison.cell import ANOTHER, EVERYTHING, Cell
from compress.comparison.comparison import VideoComparison
from compress.comparison.coverage import Place
from compress.comparison.page import render_comparison
from compress.comparison.pictures import SHOWN, Pictures
from compress.comparison.summary import reasons_to_omit, shown_columns, tabulate
from compress.plan import MergePlan
from compress.profiling.bench import synthetic_meta

CELL = Cell(
    video="x",
    status="done",
    method="random",
    retention=0.25,
    frames=2,
    tokens_in=64,
    tokens_out=16,
    tokens_inner=16,
    patches=1.0,
    seconds=0.002,
    macs=2.5e12,
    macs_full=1e13,
    assignment_error=0.125,
    local_error=0.1,
    linear_error=0.0,
    moving_coverage=0.5,
    temporal_coverage=1.0,
    longest_gap=0,
)
HOSTILE = "</script><script>alert(1)</script>{{legend}}\ud800.mp4"


class Page(HTMLParser):
    """Tags, the text of the table, and the data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data: Any = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == ("script", {"type": "application/json", "id": "data"}) and data.strip():
            self.data = self.data or json.loads(data)


def compared(name: str, *cells: Cell, frames: int = 8) -> VideoComparison:
    meta = synthetic_meta(frames=frames, side=96)
    pictures = Pictures.of(meta, Place(grid=(4, 4)))
    for cell in cells:
        assert cell.method is not None and cell.retention is not None
        keep = np.arange(0, 16 * frames, 3)
        groups = np.full(16 * frames, -1)
        groups[keep] = np.arange(len(keep))
        pictures.add(cell.method, cell.retention, MergePlan.from_groups(groups, keep=keep))
    return VideoComparison(video=name, cells=tuple(replace(cell, video=name) for cell in cells), pictures=pictures)


def test_page_is_self_contained_and_survives_names() -> None:
    omitted = Cell(video=None, status="omitted", method="matm", message="it needs <a model>")
    text = render_comparison([compared(HOSTILE, CELL)], [omitted], title="compress <compare>", about="about & more")
    page = Page(text)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{"type": "application/json", "id": "data"}, {}]
    assert not re.findall(r"fetch\(|import\(|XMLHttpRequest|url\(|innerHTML|@import|src=", text)
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}  # a name space
    assert not [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href")]
    assert page.data["videos"][0]["name"] == HOSTILE.replace("\ud800", "?")
    assert "<script>alert" not in text
    assert "not compared: matm: it needs &lt;a model&gt;" in text
    text.encode("utf-8")


def test_pictures_hold_a_bit_per_token_of_the_frames_shown() -> None:
    video = compared("x", CELL, frames=8)
    (shown,) = Page(render_comparison([video], [], title="t", about="")).data["videos"]
    assert (shown["grid"], shown["shown"], len(shown["frames"])) == ([4, 4], [0, 2, 3, 4, 6, 7], SHOWN)
    assert base64.b64decode(shown["frames"][0])[:2] == b"\xff\xd8"
    bits = np.unpackbits(np.frombuffer(base64.b64decode(shown["kept"][0]["bits"]), np.uint8))[: SHOWN * 16]
    kept = np.zeros(128, bool)
    kept[::3] = True
    assert (bits.astype(bool) == kept.reshape(8, 16)[shown["shown"]].ravel()).all()
    assert shown["kept"][0]["counts"] == kept.reshape(8, 16).sum(axis=1).tolist()


def test_figures_are_medians_and_the_best_is_marked() -> None:
    other = replace(CELL, method="stride", assignment_error=0.25, moving_coverage=None)
    videos = [compared(f"{n}", replace(CELL, seconds=n), other) for n in (1.0, 3.0, 2.0)]
    data = Page(render_comparison(videos, [], title="t", about="")).data
    columns = [column["key"] for column in data["columns"]]
    assert "residual_coverage" not in columns and "tokens_inner" not in columns and "patches" not in columns
    whole, *single = data["tables"]
    assert (whole["name"], [one["name"] for one in single]) == ("all videos", ["1.0", "3.0", "2.0"])
    random, stride = whole["rows"]
    at = columns.index
    assert (random["value"][at("seconds")], random["text"][at("seconds")]) == (2.0, "2000.0")
    assert (random["text"][at("assignment_error")], random["best"][at("assignment_error")]) == ("12.5", True)
    assert (stride["text"][at("moving_coverage")], stride["value"][at("moving_coverage")]) == ("-", None)
    assert not stride["best"][at("assignment_error")]
    assert not random["best"][at("linear_error")]  # equal everywhere: none is best
    cells = [replace(one, method=name) for one, name in ((CELL, "random"), (other, "stride"), (CELL, EVERYTHING))]
    marked = Page(render_comparison([compared("x", *cells)], [], title="t", about="")).data["tables"][0]["rows"]
    assert [row["best"][at("assignment_error")] for row in marked] == [True, False, False], "a control is never best"
    small = Page(render_comparison([compared("x", replace(CELL, macs=2.5e8))], [], title="t", about="")).data
    assert (random["text"][at("macs")], small["tables"][0]["rows"][0]["text"][at("macs")]) == ("2.50", "2.5e-04")
    assert [one["rows"][0]["value"][at("seconds")] for one in single] == [1.0, 3.0, 2.0]


def test_divergence_is_that_of_all_questions_together() -> None:
    control = Cell(
        video="a", status="done", method=EVERYTHING, retention=1.0, tokens_in=64, kl=(0.0, 0.0), agreement=1.0
    )
    cells = [replace(CELL, kl=(0.0, 1.0, 2.0), agreement=2 / 3), replace(CELL, kl=(7.0,), agreement=0.0)]
    failed = Cell(video="a", status="failed", method=ANOTHER, retention=1.0, message="no archive")
    lacking = replace(failed, status="omitted", message="needs a second video")
    assert len(tabulate([control, lacking])) == 1
    assert reasons_to_omit([[control, lacking], [lacking]], []) == {"needs a second video": [ANOTHER]}
    whole, other, row = tabulate([control, failed, *cells])
    assert (row.figures["kl_median"], row.figures["kl_mean"], row.figures["agreement"]) == (1.5, 2.5, 0.5)
    assert row.figures["kl_p90"] == float(np.percentile([0, 1, 2, 7], 90))
    assert whole.is_control and other.is_control and not row.is_control
    assert (whole.figures["kl_p90"], other.failures) == (0, ("a: no archive",))
    assert {"kl_median", "agreement"} <= {column.key for column in shown_columns([whole, other, row])}


def test_ten_videos_and_twenty_methods_stay_below_the_limit() -> None:
    methods = [f"method-{number}" for number in range(20)]
    cells = [replace(CELL, method=name, retention=share) for name in methods for share in (0.5, 0.3, 0.15, 0.1, 0.05)]
    rng = np.random.default_rng(0)
    meta = replace(synthetic_meta(frames=32, side=384), frames=rng.integers(0, 256, (32, 216, 384, 3), dtype=np.uint8))
    pictures = Pictures.of(meta, Place(grid=(14, 14)))  # noise, the largest that a JPEG becomes
    for cell in cells:
        assert cell.method is not None and cell.retention is not None
        keep = np.sort(rng.permutation(6272)[: int(6272 * cell.retention)])
        pictures.add(cell.method, cell.retention, MergePlan.selection(torch_index(keep), count_in=6272))
    videos = [
        VideoComparison(video=str(n), cells=tuple(replace(cell, video=str(n)) for cell in cells), pictures=pictures)
        for n in range(10)
    ]
    assert len(render_comparison(videos, [], title="t", about="").encode()) < 10_000_000


def torch_index(keep: np.typing.NDArray[np.int64]) -> Any:
    import torch

    return torch.from_numpy(keep)
