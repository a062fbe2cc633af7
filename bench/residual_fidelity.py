"""How close pixel-domain residuals come to the residual in the stream.

Compares maps of mean squared luma residual on a 27x27 grid with the true ones (bit-exact, from a decoder that leaves
out every prediction), per clip and picture type:

    python bench/residual_fidelity.py [--shared ../shared] [--json bench/results/residual_fidelity.json]

Columns: Spearman rank correlation, Pearson correlation of log(1 + energy), and overlap of the top 30 % of the cells;
medians over pictures. Pictures whose true residual is zero everywhere have no correlation and are counted apart.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from codecmeta import motion
from codecmeta.compensation import Reference, motion_residual
from codecmeta.motion import Planes
from codecmeta.selection import FUTURE, PAST
from codecmeta.texture import texture_planes

GRID = 27
TOP = 0.3
Map = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded picture with what the estimates need."""

    planes: Planes
    vectors: NDArray[np.int16] | None
    qp: NDArray[np.int8] | None
    kind: str
    bit_depth: int
    displayed: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A picture, its candidate references and the picture shown before it."""

    current: Picture
    past: list[Reference]
    future: list[Reference]
    previous: Picture | None


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Display positions of the candidate references of one picture, nearest first."""

    past: tuple[int, ...]
    future: tuple[int, ...]


def candidates(decode_index: list[int], is_reference: list[bool], current: int) -> Candidates:
    """Reference pictures nearest to ``current`` in display order that were decoded before it."""

    def usable(position: int) -> bool:
        return is_reference[position] and decode_index[position] < decode_index[current]

    before = [p for p in range(current - 1, -1, -1) if usable(p)]
    after = [p for p in range(current + 1, len(decode_index)) if usable(p)]
    return Candidates(past=tuple(before[:PAST]), future=tuple(after[:FUTURE]))


def is_reference(packet: bytes, extradata: bytes | None) -> bool:
    """Whether nal_ref_idc of the first coded slice is above 0 (Rec. ITU-T H.264, 7.4.1)."""
    prefixed = extradata is not None and len(extradata) >= 7 and extradata[0] == 1
    if prefixed and extradata is not None:
        at, size = 0, (extradata[4] & 3) + 1
        while at + size < len(packet):
            if packet[at + size] & 31 in (1, 2, 5):
                return packet[at + size] >> 5 & 3 > 0
            at += size + int.from_bytes(packet[at : at + size], "big")
    at = packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 3:
        if packet[at + 3] & 31 in (1, 2, 5):
            return packet[at + 3] >> 5 & 3 > 0
        at = packet.find(b"\0\0\1", at + 3)
    raise ValueError("a packet without a coded slice")


def open_decoder(path: Path) -> tuple[Any, Any]:
    container = av.open(str(path))
    stream = container.streams.video[0]
    stream.codec_context.options = {"export_side_data": "mvs+venc_params", "apply_cropping": "0"}
    stream.codec_context.copy_opaque = True
    stream.thread_type = "NONE"
    return container, stream


def decode(path: Path) -> Iterator[tuple[int, bool, Any]]:
    """Decode index, reference flag and frame, in display order."""
    container, stream = open_decoder(path)
    extradata = stream.codec_context.extradata
    flags: list[bool] = []
    with container:
        for packet in container.demux(stream):
            if packet.size:
                packet.opaque = (len(flags),)  # a fresh object: PyAV keeps tags by identity
                flags.append(is_reference(bytes(packet), extradata))
            for frame in packet.decode():
                (index,) = frame.opaque
                yield index, flags[index], frame


def read_picture(frame: Any, displayed: tuple[int, int]) -> Picture:
    planes = motion.planes(frame)
    height, width = planes[0].shape
    return Picture(
        planes=planes,
        vectors=motion.vectors(frame),
        qp=motion.quantisers(frame, width, height),
        kind={1: "I", 2: "P", 3: "B"}.get(int(frame.pict_type), "?"),
        bit_depth=motion.bit_depth(frame),
        displayed=displayed,
    )


def scenes(path: Path, targets: list[int], displayed: tuple[int, int]) -> Iterator[tuple[int, Scene]]:
    """The target pictures (display positions) with their references, keeping few pictures at a time."""
    order: list[int] = []
    flags: list[bool] = []
    for index, flag, _ in decode(path):
        order.append(index)
        flags.append(flag)
    chosen: dict[int, Candidates] = {t: candidates(order, flags, t) for t in targets}
    needs = {t: {t, max(t - 1, 0), *chosen[t].past, *chosen[t].future} for t in targets}
    waiting = sorted(targets, key=lambda t: max(needs[t]))
    kept: dict[int, Picture] = {}
    for position, (_, _, frame) in enumerate(decode(path)):
        if any(position in needs[t] for t in waiting):
            kept[position] = read_picture(frame, displayed)
        while waiting and max(needs[waiting[0]]) <= position:
            target = waiting.pop(0)
            sides = [
                [Reference(planes=kept[p].planes, distance=abs(p - target)) for p in side]
                for side in (chosen[target].past, chosen[target].future)
            ]
            yield (
                target,
                Scene(
                    current=kept[target],
                    past=sides[0],
                    future=sides[1],
                    previous=kept[target - 1] if target else None,
                ),
            )
        for gone in [p for p in kept if not any(p in needs[t] for t in waiting)]:
            del kept[gone]


def best(scene: Scene) -> Map:
    picture = scene.current
    return luma(
        motion_residual(
            picture.planes,
            picture.vectors,
            scene.past,
            scene.future,
            standard="h264",
            qp=picture.qp,
            bit_depth=picture.bit_depth,
        ).planes[0]
    )


def best_without_zone(scene: Scene) -> Map:
    picture = scene.current
    residual = motion_residual(
        picture.planes,
        picture.vectors,
        scene.past,
        scene.future,
        standard="h264",
        bit_depth=picture.bit_depth,
    )
    return luma(residual.planes[0])


def nearest(scene: Scene) -> Map:
    picture = scene.current
    residual = motion_residual(
        picture.planes,
        picture.vectors,
        scene.past[:1],
        scene.future[:1],
        standard="h264",
        bit_depth=picture.bit_depth,
    )
    return luma(residual.planes[0])


def naive(scene: Scene) -> Map:
    """Previously displayed picture moved by whole samples, the last vector of a block wins; intra left as is."""
    samples = luma(scene.current.planes[0])
    if scene.previous is None:
        return samples
    before = luma(scene.previous.planes[0])
    prediction = before.copy()
    height, width = before.shape
    table = scene.current.vectors
    for x, y, w, h, dx, dy, _ in [] if table is None else table.astype(np.int64):
        rows = np.clip(np.arange(y, y + h), 0, height - 1)
        cols = np.clip(np.arange(x, x + w), 0, width - 1)
        moved_rows = np.clip(rows + int(dy / 4), 0, height - 1)
        moved_cols = np.clip(cols + int(dx / 4), 0, width - 1)
        prediction[np.ix_(rows, cols)] = before[np.ix_(moved_rows, moved_cols)]
    return samples - prediction


def frame_difference(scene: Scene) -> Map:
    samples = luma(scene.current.planes[0])
    return samples if scene.previous is None else samples - luma(scene.previous.planes[0])


def laplacian(scene: Scene) -> Map:
    return np.asarray(ndimage.laplace(luma(scene.current.planes[0]), mode="nearest"))


def texture(scene: Scene) -> Map:
    return luma(texture_planes(scene.current.planes, bit_depth=scene.current.bit_depth)[0])


COLUMNS: dict[str, Callable[[Scene], Map]] = {
    "best 4/2 + dead zone": best,
    "best 4/2": best_without_zone,
    "nearest": nearest,
    "naive": naive,
    "frame difference": frame_difference,
    "Laplacian": laplacian,
    "texture": texture,
}


def luma(plane: NDArray[Any]) -> Map:
    return plane.astype(np.float64)


def block_squares(residual: Map, displayed: tuple[int, int], rows: int, cols: int) -> Map:
    """Sums of squares on 8x8 blocks, zeros beyond the displayed size."""
    inside = residual[: displayed[0], : displayed[1]]
    padded = np.zeros((rows * 8, cols * 8))
    padded[: inside.shape[0], : inside.shape[1]] = inside**2
    return np.asarray(padded.reshape(rows, 8, cols, 8).sum(axis=(1, 3)))


def overlaps(size: int, blocks: int) -> Map:
    """(GRID, blocks): share of each grid cell of a side of ``size`` samples that each 8-sample block covers."""
    edges = np.linspace(0, size, GRID + 1)
    begin = np.arange(blocks) * 8.0
    end = np.minimum(begin + 8, size)
    shared = np.minimum(end[None], edges[1:, None]) - np.maximum(begin[None], edges[:-1, None])
    return np.asarray(np.maximum(shared, 0))


def grid(squares: Map, valid: NDArray[np.bool_], displayed: tuple[int, int]) -> Map:
    """Mean square per cell of the 27x27 grid, leaving out blocks that are not valid."""
    down, across = overlaps(displayed[0], squares.shape[0]), overlaps(displayed[1], squares.shape[1])
    heights = np.minimum(8, displayed[0] - 8 * np.arange(squares.shape[0]))
    widths = np.minimum(8, displayed[1] - 8 * np.arange(squares.shape[1]))
    density = np.where(valid, squares / np.outer(heights, widths), 0)
    return np.asarray(down @ density @ across.T / np.maximum(down @ valid.astype(float) @ across.T, 1e-9))


def agreement(truth: Map, estimate: Map) -> tuple[float, float, float]:
    """Spearman, Pearson of log(1 + energy), top-30 % overlap; nan where the estimate does not vary."""
    t, e = truth.ravel(), estimate.ravel()
    top = round(TOP * t.size)
    overlap = np.intersect1d(np.argsort(-t, kind="stable")[:top], np.argsort(-e, kind="stable")[:top]).size
    if e.max() == e.min():
        return float("nan"), float("nan"), overlap / top
    rank = stats.spearmanr(t, e).statistic
    logs = np.corrcoef(np.log1p(t), np.log1p(e))[0, 1]
    return float(rank), float(logs), overlap / top


def truths(path: Path) -> tuple[list[int], list[str] | None, NDArray[np.int64]]:
    """Picture positions, types if known, and true sums of squares on 8x8 blocks."""
    with np.load(path) as file:
        if "y" not in file:
            return file["frame_index"].tolist(), file["frame_type"].tolist(), file["y_sqsum"].astype(np.int64)
        y = file["y"].astype(np.int64)
    rows, cols = -(-y.shape[1] // 8), -(-y.shape[2] // 8)
    squares = np.stack([block_squares(p.astype(np.float64), y.shape[1:], rows, cols) for p in y])
    return list(range(len(y))), None, squares.astype(np.int64)


def measure(clip: Path, residual: Path) -> dict[str, Any]:
    """Medians per picture type and column."""
    targets, _, squares = truths(residual)
    with av.open(str(clip)) as container:
        context = container.streams.video[0].codec_context
        displayed = (context.height, context.width)
    scores: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    empty: dict[str, int] = {}
    for position, scene in scenes(clip, targets, displayed):
        truth_blocks = squares[targets.index(position)]
        valid = truth_blocks >= 0
        truth = grid(truth_blocks, valid, displayed)
        kind = scene.current.kind
        if truth.max() == truth.min():
            empty[kind] = empty.get(kind, 0) + 1
            continue
        for name, column in COLUMNS.items():
            estimate = grid(block_squares(column(scene), displayed, *valid.shape), valid, displayed)
            scores.setdefault(kind, {}).setdefault(name, []).append(agreement(truth, estimate))
    kinds = {}
    for kind, columns in sorted(scores.items(), key=lambda item: "IPB?".index(item[0])):
        kinds[kind] = {
            "pictures": len(next(iter(columns.values()))),
            "without residual": empty.get(kind, 0),
            **{name: [round(float(v), 3) for v in np.nanmedian(np.array(s), axis=0)] for name, s in columns.items()},
        }
    return kinds


def show(name: str, kinds: dict[str, Any]) -> None:
    for kind, row in kinds.items():
        cells = "  ".join(f"{row[c][0]:5.2f} {row[c][1]:5.2f} {row[c][2]:4.2f}" for c in COLUMNS)
        print(f"{name[:38]:38s} {kind} {row['pictures']:3d} ({row['without residual']:2d})  {cells}", flush=True)


def markdown(report: dict[str, Any]) -> str:
    """The table of the documentation, real clips only."""
    lines = [f"| clip | type, pictures | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, kinds in report.items():
        group, clip = name.split("/", 1)
        if group != "real":
            continue
        for kind, row in kinds.items():
            cells = " | ".join(" ".join(f"{value:.2f}" for value in row[column]) for column in COLUMNS)
            lines.append(f"| {Path(clip).stem} | {kind}, {row['pictures']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    root = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=root.parent.parent / "shared")
    parser.add_argument("--json", type=Path, default=root / "results" / "residual_fidelity.json")
    parser.add_argument("--markdown", action="store_true", help="print the table from the results, measure nothing")
    parser.add_argument("--only", default="", help="clips whose name contains this")
    options = parser.parse_args()
    if options.markdown:
        print(markdown(json.loads(options.json.read_text())))
        return
    print("spearman, log-correlation, top-30 % overlap; columns: " + " | ".join(COLUMNS))
    report: dict[str, Any] = {}
    for group in ("real", "synthetic"):
        for residual in sorted((options.shared / "h264" / group).glob("*.residual.npz")):
            stem = residual.name.removesuffix(".residual.npz")
            folders = ("clips", "clips/derived", "clips/edge") if group == "real" else ("h264/synthetic",)
            found = [
                path
                for folder in folders
                for path in sorted((options.shared / folder).glob(f"{stem}*"))
                if path.name != residual.name and (group == "synthetic" or path.name == stem)
            ]
            if options.only not in stem or not found:
                continue
            report[f"{group}/{stem}"] = measure(found[0], residual)
            show(stem, report[f"{group}/{stem}"])
    if not options.only:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
