"""Pictures of what was kept and merged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import ConfigError
from compress.video import PACKET_SIZES, CompressedVideo

SHOWN = 6
"""Frames in a picture."""
FEWEST_BARS = 12
"""A shorter video leaves room on the right instead of broader bars."""
INK, FAINT, RULE = "#1d2433", "#6b7385", "#d9dde5"
GRANTED, BAR, BAR_SHOWN, PACKETS, OUTLINE = "#e6eaf1", "#9dbbe8", "#2f6bcb", "#d0662b", "#aab2c2"
WASH = 0.78
"""How far merged patches fade towards the light ground."""
_COLUMN, _GAP, _MARGIN, _HEADER, _LABELS = 2.35, 0.14, 0.55, 2.72, 0.62
"""Inches: a frame with the gap next to it, the margin, what stands above the frames, and the labels of a row."""


def require_matplotlib() -> None:
    """Raise unless pictures can be drawn.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "pictures need matplotlib, which is not installed; run: pip install 'codecmeta[plot]'"
        ) from error


def draw_video(frames: NDArray[np.uint8], video: CompressedVideo, *, title: str) -> bytes:
    """Draw the tokens of a video over some of its frames, below the tokens and the packet size of every frame.

    Kept patches are clear, merged ones faded; lines run between merged patches of different tokens.

    Args:
        frames: uint8, T of them or those that were sampled for T frames of tokens, (h, w, 3) each.
        video: what was kept and merged.
        title: first line of the picture.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    frames = frames[:: video.layout.temporal]
    counts = video.compression.frame_counts
    shown = choose_frames(counts, shown=SHOWN)
    rows = _layers(video)
    height, width = frames.shape[1:3]
    picture_width = _COLUMN * SHOWN + 2 * _MARGIN
    tile = min(_COLUMN * height / width, 2 * _COLUMN)
    picture_height = _HEADER + len(rows) * (tile + _LABELS) - 0.1
    figure = Figure(figsize=(picture_width, picture_height), dpi=110, facecolor="white")
    left = _MARGIN / picture_width

    def place(x: float, top: float, wide: float, high: float) -> Any:
        bottom = 1 - (top + high) / picture_height
        return figure.add_axes((x / picture_width, bottom, wide / picture_width, high / picture_height))

    def write(text: str, top: float, **style: Any) -> None:
        figure.text(left, 1 - top / picture_height, text, va="top", parse_math=False, **style)

    write(fit_title(title, longest=90), 0.22, fontsize=14, fontweight="bold", color=INK)
    write(_summary(video), 0.54, fontsize=10, color=FAINT)
    bars = "blue: tokens kept (dark: frames below)"
    if video.compression.frame_budgets is not None:
        bars = f"grey: tokens granted   {bars}"
    figure.text(1 - left, 1 - 0.3 / picture_height, bars, va="top", ha="right", fontsize=8.5, color=FAINT)
    axes = place(_MARGIN + 0.05, 0.98, _COLUMN * SHOWN - 0.75, 1.2)
    _draw_budgets(axes, video, shown)
    for layer, (label, groups, keep, cells) in enumerate(rows):
        top = _HEADER + layer * (tile + _LABELS) + 0.42
        write(label, top - 0.41, fontsize=10.5, fontweight="bold", color=INK)
        for column, frame in enumerate(shown):
            wide = _COLUMN - _GAP
            axes = place(_MARGIN + column * _COLUMN, top, wide, tile * wide / _COLUMN)
            _draw_frame(axes, frames[frame], groups[frame], keep[frame], cells, video.layout.covered)
            name = f"frame {frame}: {int(keep[frame].sum())} of {keep[frame].size}"
            axes.set_title(name, fontsize=8.5, color=FAINT, loc="left", pad=3)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def choose_frames(counts: NDArray[np.int64], *, shown: int) -> list[int]:
    """Choose frames spread evenly over the video, the one with the most tokens among them."""
    total = len(counts)
    shown = min(shown, total)
    even = [int((index + 0.5) * total / shown) for index in range(shown)]
    most = int(np.argmax(counts))
    nearest = min(range(len(even)), key=lambda index: abs(even[index] - most))
    even[nearest] = most
    return sorted(set(even))


def fit_title(text: str, *, longest: int) -> str:
    """Make a file name fit to be drawn: unprintable characters as �, the middle of a long one left out."""
    clean = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    half = (longest - 1) // 2
    return clean if len(clean) <= longest else f"{clean[:half]}…{clean[-half:]}"


_Layer = tuple[str, NDArray[np.int64], NDArray[np.bool_], tuple[int, int]]


def _layers(video: CompressedVideo) -> list[_Layer]:
    """Return (label, group of every cell, is it kept, grid) of the patches before the encoder and of the tokens."""
    layers: list[_Layer] = []
    stages = [("tokens before the language model", video.compression, video.layout.grid)]
    if video.patches is not None:
        stages.insert(0, ("patches before the encoder", video.patches, video.layout.patch_grid))
    for label, compression, cells in stages:
        plan = compression.plan
        groups = plan.assign.cpu().numpy().reshape(-1, *cells)
        if video.patches is compression:  # a region is a token too: only patches that did not merge are drawn clear
            keep = (plan.sizes == 1)[plan.assign].cpu().numpy()
        else:
            keep = np.zeros(plan.count_in, bool)
            keep[plan.keep.cpu().numpy()] = True
        layers.append((label, groups, keep.reshape(-1, *cells), cells))
    return layers


def _summary(video: CompressedVideo) -> str:
    compression = video.compression
    plan, counts = compression.plan, compression.frame_counts
    parts = [
        f"{compression.method}: {plan.count_in} → {plan.count_out} tokens ({100 * plan.retention:.1f} %)",
        f"{counts.min()} to {counts.max()} per frame",
    ]
    if pairs := compression.diagnostics.get("pairs"):
        parts.append(f"{int(pairs)} pairs merged across frames")
    if video.patches is not None:
        patches = video.patches.plan
        share = f"({100 * patches.retention:.1f} %)"
        how = f"rpm on {rpm}" if (rpm := video.sources.get("rpm")) else "computed by change"
        parts.append(f"{how}: {patches.count_in} → {patches.count_out} patches {share}")
    return "   ·   ".join([*parts, *video.notes])


def _draw_budgets(axes: Any, video: CompressedVideo, shown: Sequence[int]) -> None:
    """Draw bars: tokens granted to a frame and, in front, tokens kept; and a line: its complexity in bytes."""
    counts, packet_size = video.compression.frame_counts, video.packet_size
    granted = video.compression.frame_budgets
    index = np.arange(len(counts))
    highest = counts if granted is None else np.maximum(counts, granted)
    if granted is not None:
        axes.bar(index, granted, width=0.84, color=GRANTED)
    axes.bar(index, counts, width=0.84, color=np.where(np.isin(index, shown), BAR_SHOWN, BAR))
    axes.set_ylabel("tokens", fontsize=9, color=BAR_SHOWN)
    axes.set_xlim(-0.7, max(len(counts), FEWEST_BARS) - 0.3)
    axes.set_ylim(0, max(1.0, 1.08 * highest.max()))
    packets = axes.twinx()
    edges = np.arange(len(counts) + 1) - 0.5
    packets.stairs(packet_size, edges, baseline=None, color=PACKETS, linewidth=1.3)
    what = video.sources.get("packet_size", PACKET_SIZES["mean"])
    packets.set_ylabel(fill(f"bytes: {what}", 22), fontsize=9, color=PACKETS)
    packets.set_ylim(0, max(1.0, 1.08 * float(packet_size.max())))
    axes.set_xlabel("sampled frame", fontsize=9, color=FAINT, labelpad=1)
    for panel in (axes, packets):
        panel.tick_params(labelsize=8, colors=FAINT, length=2, width=0.6)
        for side in ("top", "left", "right"):
            panel.spines[side].set_visible(False)
        panel.spines["bottom"].set_color(RULE)
        panel.yaxis.get_major_locator().set_params(nbins=4)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=RULE, linewidth=0.6)


def _draw_frame(
    axes: Any,
    frame: NDArray[np.uint8],
    groups: NDArray[np.int64],
    keep: NDArray[np.bool_],
    cells: tuple[int, int],
    covered: float,
) -> None:
    """Draw one frame: merged cells faded, with lines between those that became different tokens."""
    from matplotlib.collections import LineCollection

    height, width = frame.shape[:2]
    row = np.minimum((np.arange(height) + 0.5) / (height * covered) * cells[0], cells[0] - 1e-6).astype(int)
    col = np.minimum((np.arange(width) + 0.5) / (width * covered) * cells[1], cells[1] - 1e-6).astype(int)
    clear = keep[np.ix_(row, col)][..., None]
    grey = frame.mean(axis=2, keepdims=True)
    faded = WASH * 255 + (1 - WASH) * (0.5 * grey + 0.5 * frame)
    axes.imshow(np.where(clear, frame, faded).astype(np.uint8), interpolation="antialiased", aspect="auto")
    wide, high = width * covered / cells[1], height * covered / cells[0]
    across = (groups[:, 1:] != groups[:, :-1]) & ~keep[:, 1:] & ~keep[:, :-1]
    down = (groups[1:] != groups[:-1]) & ~keep[1:] & ~keep[:-1]
    x, y = np.arange(cells[1] + 1) * wide - 0.5, np.arange(cells[0] + 1) * high - 0.5
    lines = [[(x[c + 1], y[r]), (x[c + 1], y[r + 1])] for r, c in np.argwhere(across)]
    lines += [[(x[c], y[r + 1]), (x[c + 1], y[r + 1])] for r, c in np.argwhere(down)]
    axes.add_collection(LineCollection(lines, colors=OUTLINE, linewidths=0.6, capstyle="round"))
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(RULE)
