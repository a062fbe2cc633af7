"""Pictures and the HTML page."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.errors import ConfigError
from compress.metom.rpm import RPM
from compress.picture import choose_frames, draw_video, fit_title, require_matplotlib
from compress.plan import MergePlan
from compress.report import render_page
from compress.runner import VideoReport
from compress.stage import Compression
from compress.video import CompressedVideo, Layout

matplotlib_image = pytest.importorskip("matplotlib.image")


def make_video(*, frames: int = 4, kept: int = 20, rpm: bool = True) -> CompressedVideo:
    """Make a video in which the first `kept` tokens of every frame stay and take in the rest of it."""
    keep = np.concatenate([196 * t + np.arange(kept) for t in range(frames)])
    groups = np.arange(196 * frames) % 196 % kept + kept * (np.arange(196 * frames) // 196)
    density = np.ones((frames, 27, 27), np.float32)
    density[:, 5:20, 5:20] = 0
    return CompressedVideo(
        tokens=torch.zeros(len(keep), 8),
        patches=RPM(tau=0.5).before_encoder(density) if rpm else None,
        compression=Compression(
            method="test",
            plan=MergePlan.from_groups(groups, keep=keep),
            frames=frames,
            nominal=len(keep),
        ),
        positions=torch.from_numpy(keep),
        frame_seconds=np.arange(frames, dtype=np.float64),
        layout=Layout(),
        packet_size=np.linspace(100, 400, frames),
        sources={"rpm": "carried" if rpm else "skipped"},
        notes=() if rpm else ("RPM skipped: no residuals",),
    )


def pixels(png: bytes) -> NDArray[np.float32]:
    image: NDArray[np.float32] = matplotlib_image.imread(io.BytesIO(png))
    return image


def coloured(image: NDArray[np.float32]) -> int:
    """Pixels of a strong green, which nothing but the frames contains."""
    return int(((image[..., 1] > 0.6) & (image[..., 0] < 0.3) & (image[..., 2] < 0.3)).sum())


def test_picture_shows_more_of_the_frames_where_more_is_kept() -> None:
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    frames[..., 1] = 200
    few, many = (
        coloured(pixels(draw_video(frames, make_video(kept=kept, rpm=False), title="x"))) for kept in (20, 160)
    )
    share = (27 * 14 / 384) ** 2 / 196
    unused = 1 - 196 * share  # the rim that patches do not cover has the look of the outermost ones
    assert few > 0
    assert many / few == pytest.approx(160 / 20, rel=0.1 + unused)


def test_picture_repeats_and_survives_any_shape_and_title() -> None:
    rng = np.random.default_rng(0)
    for shape, count in (((90, 30), 4), ((20, 200), 1), ((1, 1), 2)):
        frames = rng.integers(0, 256, (count, *shape, 3), np.uint8)
        video = make_video(frames=count, rpm=count > 1)
        title = "$x_1$ \ud800 \n <b>" + "y" * 300
        first = draw_video(frames, video, title=title)
        assert first == draw_video(frames, video, title=title)
        assert first.startswith(b"\x89PNG")
        assert pixels(first).shape[1] > 1000


def test_frames_shown_are_spread_and_hold_the_richest() -> None:
    counts = np.full(32, 5)
    counts[14] = 90
    shown = choose_frames(counts, shown=6)
    assert shown == sorted(shown)
    assert 14 in shown
    assert len(shown) == 6
    assert max(np.diff(shown)) <= 8
    assert choose_frames(np.array([3]), shown=6) == [0]
    assert choose_frames(np.array([1, 1, 9]), shown=6) == [0, 1, 2]


def test_names_are_made_fit_to_be_shown() -> None:
    assert fit_title("a\nb\ud800c", longest=20) == "a\ufffdb\ufffdc"
    assert len(fit_title("x" * 500, longest=91)) == 91
    assert fit_title("clip.mp4", longest=20) == "clip.mp4"


def test_missing_matplotlib_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="pip install"):
        require_matplotlib()


DONE = VideoReport(
    video="a/<script>alert(1)</script>.mp4",
    status="done",
    message="",
    method="metom",
    retention=0.3,
    frames=3,
    tokens_in=588,
    tokens_out=120,
    budgets=(40, 60, 20),
    granted=(50, 76, 50),
    seconds={"load": 0.25, "encode": 0.5},
    out="tokens/a.safetensors",
    merges={"pairs": 7.0},
    sources={"rpm": "carried"},
)
FAILED = VideoReport(video="b\ud800", status="failed", message="no <frames>", method="metom", retention=0.3)


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_self_contained_and_holds_the_figures() -> None:
    text = render_page([DONE, FAILED], title="compress run")
    page = Page(text)
    assert not {"link", "iframe"} & {tag for tag, _ in page.tags}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]  # one, inline, that sorts
    assert not {"http:", "https:", "fetch", "import", "XMLHttpRequest", "url(", "innerHTML"} & set(_words(text))
    references = [v for _, attrs in page.tags for k, v in attrs.items() if k in ("src", "href")]
    assert references
    assert all(value and value.startswith("#") for value in references)
    for expected in ("<script>alert(1)</script>.mp4", "588", "20.4 %", "20 to 60", "0.75", "no <frames>", "1 failed"):
        assert expected in page.text
    bars = [attrs for tag, attrs in page.tags if tag == "rect"]
    assert len(bars) == 6
    heights = [float(attrs["height"] or 0) for attrs in bars if "class" not in attrs]
    assert heights[1] / heights[0] == pytest.approx(60 / 40, abs=0.01)
    text.encode("utf-8")


def _words(text: str) -> list[str]:
    return re.findall(r"https?:|fetch|import|XMLHttpRequest|url\(|innerHTML", text)


def test_rows_have_the_keys_by_which_the_table_is_sorted() -> None:
    more = replace(DONE, video="b10.mp4", tokens_out=1176, tokens_in=2352)
    keys = [attrs["data-key"] for tag, attrs in Page(render_page([DONE, more], title="t")).tags if "data-key" in attrs]
    assert keys[:4] == [DONE.video, "3", "588", "120"]
    assert keys[7:10] == ["b10.mp4", "3", "2352"]
    assert float(keys[11] or 0) == 0.5


def test_page_embeds_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    picture.write_bytes(b"\x89PNG not really")
    page = Page(render_page([replace(DONE, picture=str(picture))], title="t"))
    (image,) = [attrs for tag, attrs in page.tags if tag == "img"]
    assert (image["src"] or "").startswith("data:image/png;base64,iVBORyBub3QgcmVhbGx5")
    assert not [tag for tag, _ in page.tags if tag == "rect"]


def test_page_of_failures_only() -> None:
    page = Page(render_page([FAILED], title="t"))
    assert "0 videos" in page.text
