"""Plots of a VideoMeta: packet sizes and GoPs over time, sampled frames with energy and motion overlaid."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import UsageError
from codecmeta.record.atomic_file import replace_file
from codecmeta.record.density import patch_density
from codecmeta.record.gop import gop_starts
from codecmeta.record.meta import MISSING, MapName, VideoMeta

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE, ACCENT, KEY, BAND = "#22303c", "#c9d3da", "#2a7fb8", "#d1495b", "#eef2f5"
LISTS = {-1: ("#ffb000", "list 0 (mostly from before)"), 1: ("#ff5fa2", "list 1 (mostly from after)")}
"""Colour and meaning of arrows, by the direction of a vector."""
FORMATS = (".png", ".pdf", ".svg")
COLUMNS = 4
_MAX_BARS = 20_000
_MAX_BANDS = 700
"""Numbers above which a bar, or a band, is narrower than the picture can show."""


def plot_meta(meta: VideoMeta, path: str | os.PathLike[str], *, map: MapName | None = None, count: int = 8) -> None:
    """Write one picture of a video's metadata: packets and GoPs, and frames where the record has something to show.

    Args:
        meta: the metadata.
        path: file to write; its extension (.png, .pdf, .svg) sets the format.
        map: energy map to overlay on the frames; None takes `carried`, else `innovation`, else none.
        count: largest number of frames to draw, spread evenly over the sampled ones.

    Raises:
        UsageError: matplotlib is not installed, the map is absent, or the extension is no known format.
        OSError: the file cannot be written.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise UsageError(f"{os.fspath(path)!r}: the extension is the format; choose from {', '.join(FORMATS)}")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib: pip install 'codecmeta[plot]'") from error
    name = map or next((n for n in ("carried", "innovation") if getattr(meta, f"energy_{n}") is not None), None)
    has_vectors = meta.mv is not None and len(meta.mv) > 0
    count = min(count, len(meta.frame_pts)) if name or has_vectors or meta.has_frames else 0
    chosen = np.unique(np.linspace(0, len(meta.frame_pts) - 1, count).round().astype(int))
    rows = -(-chosen.size // COLUMNS)
    shown_w, shown_h = meta.display_size
    cell = 3.6
    below = 0.7 * bool(chosen.size and name) + 0.5 * has_vectors
    height = 2.9 + rows * (cell * shown_h / shown_w + 0.35) + below
    figure = Figure(figsize=(COLUMNS * cell, height), layout="constrained")
    heights = [2.4] + [cell * shown_h / shown_w] * rows
    grid = figure.add_gridspec(1 + rows, COLUMNS, height_ratios=heights)
    draw_timeline(figure.add_subplot(grid[0, :]), meta)
    frames = []
    for place, index in enumerate(chosen.tolist()):
        frames.append(figure.add_subplot(grid[1 + place // COLUMNS, place % COLUMNS]))
        draw_frame(frames[-1], meta, index, map=name)
    if name and frames:
        _add_colour_bar(figure, frames, meta, name)
    if has_vectors:
        _add_arrow_legend(figure)
    _title(figure, meta)
    _save(figure, Path(path))


def _save(figure: Figure, path: Path) -> None:
    """Write the picture completely or not at all."""
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=110, facecolor="white")
    with replace_file(path) as file:
        file.write(picture.getvalue())


def _title(figure: Figure, meta: VideoMeta) -> None:
    stream = meta.info["stream"]
    # a file name can be this long
    text = f"{meta.info['source']['name'][:255]}   {stream.get('codec', '')} {meta.width}x{meta.height}"
    figure.suptitle(text.encode("ascii", "backslashreplace").decode(), color=INK, fontsize=11, parse_math=False)


def _add_colour_bar(figure: Figure, frames: list[Axes], meta: VideoMeta, name: MapName) -> None:
    """Draw the scale of the block colours, as they look over the frames."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    on_pixels = meta.has_frames
    laid_over = _overlay(np.linspace(0, 1, 256), on_pixels=on_pixels)
    # a colour bar ignores transparency: show the resulting colours over white
    colours = ListedColormap(1 - laid_over[:, 3:] * (1 - laid_over[:, :3]))
    bar = figure.colorbar(
        ScalarMappable(cmap=colours), ax=frames, orientation="horizontal", fraction=0.03, aspect=80, pad=0.02
    )
    bar.set_ticks([0, 0.5, 1], labels=["none", "median block of the frame", "highest"])
    bar.ax.tick_params(labelsize=8, colors=INK)
    source = meta.info["signals"].get(name, {}).get("source")
    clear = "; blocks of low rank are left clear" if on_pixels else ""
    bar.set_label(f"{name} energy, source {source}, by rank within a frame{clear}", color=INK, fontsize=9)


def _add_arrow_legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=2, label=label) for colour, label in LISTS.values()]
    title = "arrows lead from where a block is predicted from to where it is"
    legend = figure.legend(
        handles=handles, title=title, loc="outside lower center", ncols=2, frameon=False, fontsize=8, labelcolor=INK
    )
    legend.get_title().set(fontsize=8, color=INK)


def draw_timeline(axes: Axes, meta: VideoMeta) -> None:
    """Draw packet sizes in decode order as bars, GoPs as bands with their mean, sampled frames as marks.

    Args:
        axes: where to draw.
        meta: the metadata.
    """
    sizes = meta.packet_size.astype(np.float64)
    at = np.arange(sizes.size)
    starts = gop_starts(meta.packet_key)
    ends = np.append(starts[1:], sizes.size)
    shaded = len(meta.gops) <= _MAX_BANDS
    for gop in meta.gops[::2] if shaded else ():
        axes.axvspan(gop.start - 0.5, gop.start + gop.packets - 0.5, color=BAND, lw=0, zorder=0)
    count = max(sizes.size, 1)
    step = -(-count // _MAX_BARS)
    key = meta.packet_key
    width = min(3.0, 700 / count)
    axes.vlines(*_thin(at[~key], sizes[~key], step), color=ACCENT, lw=max(0.4, width), zorder=1)
    axes.vlines(*_thin(at[key], sizes[key], step), color=KEY, lw=max(0.8, width), zorder=2)
    mean = [gop.bytes / gop.packets for gop in meta.gops]
    axes.hlines(mean, starts - 0.5, ends - 0.5, color=INK, lw=1.4, zorder=3)
    low = max(sizes[sizes > 0].min(initial=1e9) * 0.5, 1.0)
    axes.plot(
        meta.frame_packet,
        np.full(len(meta.frame_packet), 0.03),
        "^",
        color=INK,
        ms=4,
        transform=axes.get_xaxis_transform(),
        zorder=4,
    )
    axes.set_yscale("log")
    axes.set_ylim(low, sizes.max(initial=low) * 1.6)
    axes.set_xlim(-0.5, count - 0.5)
    label = "bytes per packet" if step == 1 else f"bytes, largest of {step} packets"
    axes.set_ylabel(label, color=INK, fontsize=9)
    axes.set_xlabel("packet, decode order", color=INK, fontsize=9, labelpad=2)
    axes.locator_params(axis="x", integer=True)
    _add_legend(axes, len(meta.gops), shaded=shaded)
    # a narrow range of sizes labels the minor ticks, too
    axes.tick_params(which="both", labelsize=8, colors=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _thin(
    at: NDArray[np.intp], sizes: NDArray[np.float64], step: int
) -> tuple[NDArray[np.intp], float, NDArray[np.float64]]:
    """Return one bar for every `step` packets, as high as the largest of them."""
    firsts = np.arange(0, at.size, step)
    return at[firsts], 1.0, np.maximum.reduceat(sizes, firsts) if at.size else sizes


def _add_legend(axes: Axes, gops: int, *, shaded: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=KEY, lw=3, label="key packet"),
        Line2D([], [], color=ACCENT, lw=3, label="other packet"),
        Patch(
            facecolor=BAND if shaded else "none",
            edgecolor=PALE,
            label="1 GoP" if gops == 1 else f"{gops} GoPs{', every other shaded' if shaded else ''}",
        ),
        Line2D([], [], color=INK, lw=1.4, label="mean packet of the GoP"),
        Line2D([], [], color=INK, marker="^", ms=4, lw=0, label="sampled frame"),
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderaxespad=0.2,
    )


def draw_frame(axes: Axes, meta: VideoMeta, index: int, *, map: MapName | None) -> None:
    """Draw one sampled frame with its energy and its motion vectors.

    Args:
        axes: where to draw.
        meta: the metadata.
        index: number of the sampled frame.
        map: energy map to overlay, None for none.

    Raises:
        UsageError: the map is absent.
    """
    width, height = meta.display_size
    extent = (0, width, height, 0)
    if meta.frames is not None:
        axes.imshow(meta.frames[index], extent=extent, interpolation="bilinear")
    if map is not None:
        axes.imshow(
            _overlay(_strength(meta, index, map), on_pixels=meta.has_frames),
            extent=extent,
            interpolation="nearest",
        )
    if meta.mv is not None:
        _draw_arrows(axes, meta.displayed_vectors(index))
    stamp = meta.frame_pts[index]
    seconds = f"{meta.frame_seconds[index]:.2f} s" if stamp != MISSING else "-"
    axes.set_title(
        f"frame {index}  {meta.frame_type[index]}  {seconds}  packet {meta.frame_packet[index]}",
        loc="left",
        fontsize=8,
        color=INK,
        pad=3,
    )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(PALE)


def _strength(meta: VideoMeta, index: int, map: MapName) -> NDArray[np.float64]:
    """Rank the energy of each block in display orientation, 0 to 1, so that few loud blocks do not hide the rest."""
    energy, extent = getattr(meta, f"energy_{map}"), getattr(meta, f"range_{map}")
    if energy is None:
        raise UsageError(f"this VideoMeta has no map {map!r}; extract it with --maps {map}")
    width, height = meta.orientation.swap(meta.width, meta.height)
    grid = (-(-height // meta.block), -(-width // meta.block))
    density = patch_density(
        energy[index : index + 1],
        extent[index : index + 1],
        width=meta.width,
        height=meta.height,
        block=meta.block,
        orientation=meta.orientation,
        grid=grid,
        box=None,
    )[0]
    if density.min() == density.max():
        return np.zeros(density.shape)
    values, ranks = np.unique(density, return_inverse=True)
    shares = np.cumsum(np.bincount(ranks.reshape(-1))) / density.size
    strength: NDArray[np.float64] = np.where(density > values[0], shares[ranks].reshape(density.shape), 0.0)
    return strength


def _overlay(strength: NDArray[np.float64], *, on_pixels: bool) -> NDArray[np.float64]:
    """Return colours from blue to yellow, more transparent where the energy is low."""
    from matplotlib import colormaps

    picture: Any = colormaps["viridis"](strength)
    picture[..., 3] = np.clip(strength - 0.35, 0, 1) if on_pixels else 1.0
    return np.asarray(picture, np.float64)


def _draw_arrows(axes: Axes, vectors: NDArray[np.float32]) -> None:
    moving = vectors[(np.abs(vectors[:, 4:6]).max(axis=1) >= 1)] if len(vectors) else vectors
    if not len(moving):
        return
    moving = moving[:: -(-len(moving) // 600)].astype(np.float64)
    x, y = moving[:, 0] + moving[:, 2] / 2, moving[:, 1] + moving[:, 3] / 2
    # an arrow leads from a block's reference to the block
    dx, dy = -moving[:, 4], -moving[:, 5]
    colors = np.where(moving[:, 6] < 0, LISTS[-1][0], LISTS[1][0])
    axes.quiver(x - dx, y - dy, dx, dy, color=colors, angles="xy", scale_units="xy", scale=1, width=0.004, headwidth=4)
