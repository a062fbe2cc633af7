"""Pictures of the README and the site: the overview of one clip, charts of speed, of accuracy and of every method.

python -m bench.figures                         # all, into docs/images/
python -m bench.figures speed accuracy methods  # charts from bench/results/*.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from bench.figure_style import BLUE, FAINT, GREEN, GREY, INK, ORANGE, RULE, clear_axes, rule_axes
from bench.method_panels import EVERY, PICTURES, draw_panels, gather_panels

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "bench" / "results"

FRAMES = (4, 8, 13, 14, 22)
"""Sampled frames of the overview: before, during and after the event of the clip."""
PATCHES, TOKENS = (27, 27), (14, 14)
TOKENS_CPU = 20 * 14 * 14
"""Visual tokens of the prompt in bench/prefill_cpu.py."""

READING = {
    "packets and GoPs": "packets and GoPs",
    "uniform:32, innovation, no pixels": "32 frames: exact residual, no pixels",
    "uniform:32, pixels": "32 frames: pixels",
    "uniform:32, all defaults (pixels, innovation)": "32 frames: pixels, exact residual (default)",
    "32 frames by plain PyAV seeks": "PyAV: seek to 32 frames",
    "decode every frame (1 thread)": "PyAV: decode all 1500 frames",
    "all frames, vectors, residual bitstream": "all frames: vectors, exact residual",
    "motion-vector-extractor": "motion-vector-extractor: vectors only",
}
"""Rows of bench/results/extract.json and what the chart calls them."""

METHODS = {
    "cover": ("Cover", INK, "-"),
    "infomerge": ("InfoMerge", BLUE, "-"),
    "metom": ("MeToM", ORANGE, "-"),
    "pool-space": ("average pooling", GREY, "--"),
    "stride": ("uniform stride", FAINT, "--"),
    "random": ("random tokens", GREY, "-"),
    "frames": ("fewer frames", GREY, ":"),
    "evs": ("EVS", GREEN, "-"),
    "divprune": ("DivPrune", GREEN, "--"),
    "sttm": ("STTM", ORANGE, "--"),
}
JUDGES = ("whole0-six", "whole1-six")
"""Runs of bench/results/accuracy.json by the two decoders that saw whole clips only."""


def draw_overview() -> None:
    """Draw packet sizes, residual energy and kept tokens of a clip of data/."""
    import codecmeta
    from compress.encoders import SpectralEncoder
    from compress.metom import MeToM
    from compress.video import compress_video

    meta = codecmeta.extract(ROOT / "data" / "event_h264.mp4", motion=True)
    video = compress_video(meta, MeToM(retention=0.3), encoder=SpectralEncoder())
    plan = video.compression.plan
    kept = np.zeros(plan.count_in, bool)
    kept[plan.keep.cpu().numpy()] = True
    kept = kept.reshape(-1, *TOKENS)
    density = meta.density(PATCHES)
    assert meta.frames is not None

    figure = Figure(figsize=(10, 6.6), dpi=110, facecolor="white")
    grid = figure.add_gridspec(
        4,
        len(FRAMES),
        height_ratios=(0.75, 1, 1, 1),
        left=0.115,
        right=0.99,
        top=0.93,
        bottom=0.02,
        wspace=0.05,
        hspace=0.16,
    )
    sizes = figure.add_subplot(grid[0, :])
    colours = np.where(meta.packet_key, ORANGE, BLUE)
    sizes.bar(np.arange(len(meta.packet_size)), meta.packet_size, width=1, color=colours)
    sizes.plot(meta.frame_packet[list(FRAMES)], np.full(len(FRAMES), 8.0), "^", color=INK, markersize=5)
    sizes.set_yscale("log")
    sizes.set_xlim(-1, len(meta.packet_size))
    sizes.set_title(
        f"{len(meta.packet_size)} packets, {len(meta.gops)} GoPs: bytes per packet "
        "(orange: key packets; triangles: frames below)",
        fontsize=9,
        color=FAINT,
        loc="left",
    )
    sizes.tick_params(labelsize=7, colors=FAINT)
    sizes.xaxis.set_visible(False)
    clear_axes(sizes)
    labels = (
        "frame",
        "what the\ncodec coded:\nresidual",
        f"what is kept:\n{100 * plan.retention:.0f} % of the\ntokens",
    )
    for column, frame in enumerate(FRAMES):
        picture = meta.frames[frame]
        rows = (picture, _heat(picture, density[frame]), _kept(picture, kept[frame]))
        for row, image in enumerate(rows):
            axes = figure.add_subplot(grid[row + 1, column])
            axes.imshow(image, aspect="auto", interpolation="antialiased")
            axes.set_xticks([])
            axes.set_yticks([])
            for side in axes.spines.values():
                side.set_color(RULE)
            if column == 0:
                axes.set_ylabel(labels[row], rotation=0, ha="right", va="center", fontsize=9, color=INK)
            if row == 0:
                axes.set_title(f"{meta.frame_seconds[frame]:.1f} s", fontsize=8, color=FAINT, loc="left", pad=3)
            if row == 2:
                axes.text(
                    0.98,
                    0.04,
                    f"{kept[frame].sum()} of {kept[frame].size}",
                    transform=axes.transAxes,
                    ha="right",
                    fontsize=8,
                    color=INK,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
                )
    figure.text(0.115, 0.965, "data/event_h264.mp4", fontsize=12, fontweight="bold", color=INK)
    figure.savefig(IMAGES / "overview.png", metadata={"Software": None})


def _heat(picture: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Lay the rank of each patch's density over a faded picture, where anything is coded."""
    rank = density.argsort(axis=None, kind="stable").argsort().reshape(density.shape) / density.size
    coded = np.where(density > density.min(), np.clip(2 * rank - 1, 0.25, 1), 0)  # a flat map: nothing is coded
    shade = _spread(coded, picture.shape[:2])[..., None]
    grey = 0.55 * 255 + 0.45 * picture.mean(axis=2, keepdims=True)
    return ((1 - 0.85 * shade) * grey + 0.85 * shade * np.array((208, 102, 43))).astype(np.uint8)


def _kept(picture: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Fade what is merged."""
    clear = _spread(kept.astype(float), picture.shape[:2])[..., None] > 0.5
    faded = 0.82 * 255 + 0.18 * picture.mean(axis=2, keepdims=True)
    return np.where(clear, picture, faded).astype(np.uint8)


def _spread(cells: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Repeat the cells of a grid over a picture."""
    rows, columns = (np.arange(length) * count // length for length, count in zip(shape, cells.shape, strict=True))
    return cells[np.ix_(rows, columns)]


def draw_speed() -> None:
    """Draw reading times against decoding, and prefill against the share of the tokens."""
    reading = _load("extract")["clips"]["rendered_720p_1min.mp4"]
    prefill = [case for case in _load("prefill_cpu")["cases"] if case["case"].startswith(("infomerge 0", "btm 0"))]
    figure = Figure(figsize=(10, 3.2), facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(left=0.27, right=0.985, top=0.86, bottom=0.13, wspace=0.22)
    names = [name for name in READING if name in reading]
    seconds = [float(reading[name]) for name in names]
    ours = [not READING[name].startswith(("PyAV", "motion-vector")) for name in names]
    left.barh(range(len(names)), seconds, color=[BLUE if one else GREY for one in ours], height=0.62)
    for row, value in enumerate(seconds):
        left.text(value * 1.12, row, f"{value:.2g} s", va="center", fontsize=8.5, color=INK)
    left.set_yticks(range(len(names)), [READING[name] for name in names], fontsize=9, color=INK)
    left.invert_yaxis()
    left.set_xscale("log")
    left.set_xlim(0.006, 40)
    left.xaxis.set_visible(False)
    left.set_title(
        "One minute of 720p H.264, one thread, CPU seconds (logarithmic)", fontsize=9, color=FAINT, loc="left", x=-0.0
    )
    clear_axes(left)
    left.spines["left"].set_visible(False)
    left.tick_params(length=0)
    for prefix, name, colour in (("infomerge", "InfoMerge", BLUE), ("btm", "BTM of MeToM", ORANGE)):
        cases = [case for case in prefill if case["case"].startswith(f"{prefix} 0")]
        shares = [100 * case["tokens"] / TOKENS_CPU for case in cases]
        right.plot(
            shares, [case["speed_up"] for case in cases], "o-", color=colour, label=name, linewidth=1.8, markersize=4
        )
    right.set_title(f"Prefill, times faster (CPU, {TOKENS_CPU} tokens)", fontsize=9, color=FAINT, loc="left")
    right.set_xlabel("tokens kept, %", fontsize=8.5, color=FAINT)
    _lines(right)
    figure.savefig(IMAGES / "speed.svg", metadata={"Date": None, "Creator": None})


def draw_accuracy() -> None:
    """Draw the accuracy over guessing that remains against the tokens that are kept: mean and range of two judges."""
    runs = _load("accuracy")["runs"]
    judges = [runs[name] for name in JUDGES]
    figure = Figure(figsize=(7, 3.6), facecolor="white")
    axes = figure.subplots()
    figure.subplots_adjust(left=0.08, right=0.985, top=0.9, bottom=0.14)
    for method, (name, colour, line) in METHODS.items():
        found = [
            sorted((row for row in run["rows"] if row["method"] == method), key=lambda row: row["retention"])
            for run in judges
        ]
        kept = [100 * row["kept"] for row in found[0]]
        values = [[100 * row["corrected"]["value"] for row in rows] for rows in found]
        means = [sum(column) / len(column) for column in zip(*values, strict=True)]
        axes.plot(kept, means, line, marker="o", markersize=3.5, color=colour, label=name)
        if line == "-":
            axes.fill_between(kept, *values, color=colour, alpha=0.15, linewidth=0)
    axes.set_ylim(25, 103)
    axes.set_title(
        "Accuracy over guessing that remains, % of the model with all tokens "
        f"({judges[0]['about']['clips']} clips, two judges)",
        fontsize=9,
        color=FAINT,
        loc="left",
    )
    axes.set_xlabel("tokens kept, %", fontsize=8.5, color=FAINT)
    _lines(axes)
    figure.savefig(IMAGES / "accuracy.svg", metadata={"Date": None, "Creator": None})


def draw_methods() -> None:
    """Draw every measured method in a panel of its own: accuracy by both judges, times to the first token."""
    runs = _load("accuracy")["runs"]
    panels = gather_panels([[runs[name] for name in names] for names in EVERY], _load("first_token")["rows"])
    for picture in PICTURES:
        draw_panels(picture, panels, IMAGES / f"methods_{picture}.svg")


def _load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _lines(axes: Any) -> None:
    rule_axes(axes)
    axes.legend(fontsize=8.5, frameon=False)


DRAWINGS = {"overview": draw_overview, "speed": draw_speed, "accuracy": draw_accuracy, "methods": draw_methods}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drawings", nargs="*", default=list(DRAWINGS), help=", ".join(DRAWINGS))
    mpl.rcParams["svg.hashsalt"] = "codecmeta"  # the same file again from the same figures
    IMAGES.mkdir(exist_ok=True)
    for name in parser.parse_args().drawings:
        DRAWINGS[name]()


if __name__ == "__main__":
    main()
