"""Screen of `codecmeta show`."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codecmeta.record.fields import FIELDS
from codecmeta.record.meta import VideoMeta
from codecmeta.record.orientation import UPRIGHT
from codecmeta.storage.address import Place
from codecmeta.storage.opening import file_size
from codecmeta_cli.console import printable


def print_json(meta: VideoMeta) -> None:
    """Print `info` and the shapes of the arrays as one JSON object on standard output."""
    arrays = {
        name: {"dtype": array.dtype.str, "shape": list(array.shape)}
        for name in FIELDS
        if (array := meta.stored(name)) is not None
    }
    gops = {"count": len(meta.gops), "packets": [gop.packets for gop in meta.gops]}
    sys.stdout.write(json.dumps({**meta.info, "gops": gops, "arrays": arrays}) + "\n")


def print_meta(meta: VideoMeta, path: Place) -> None:
    """Print one screen of facts about a record, and its path or URL."""
    console = Console(highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column()
    for name, value in _rows(meta, path):
        table.add_row(name, Text(printable(value)))
    console.print(table)


def _rows(meta: VideoMeta, path: Place) -> list[tuple[str, str]]:
    stream, verdict, extraction = meta.info["stream"], meta.info["verdict"], meta.info["extraction"]
    packets = np.array([gop.packets for gop in meta.gops])
    sizes = meta.packet_size
    seconds = meta.frame_seconds
    types = "".join(meta.frame_type.tolist())
    codec = f"{stream.get('codec', 'codec unknown')} {stream.get('profile') or ''}".strip()
    depth = f"{stream['bit_depth']} bit" if stream.get("bit_depth") else "bit depth unknown"
    fps = f"{stream['fps']:.3f} fps" if stream.get("fps") else "no frame rate"
    duration = f"{stream['duration_s']:.2f} s" if stream.get("duration_s") else "duration unknown"
    length = _bytes(meta.info["source"]["bytes"]) if "bytes" in meta.info["source"] else "length unknown"
    rows = [
        ("video", f"{meta.info['source']['name']}, {length}"),
        ("stream", f"{codec}, {meta.width}x{meta.height}, {depth} {stream.get('chroma', '')}"),
        *_display(meta),
        ("time", f"{fps}, {duration}, time base {stream['time_base'][0]}/{stream['time_base'][1]}"),
        ("file", f"{verdict.get('state', 'unknown')}: {verdict.get('evidence', 'nothing is recorded')}"),
        (
            "checked",
            f"{verdict.get('checked', 'an unknown number')} of {verdict.get('frames', 'an unknown number')} frames",
        ),
        ("packets", f"{sizes.size}, {_bytes(int(sizes.sum(dtype=np.int64)))}, from {_source(meta, 'packets')}"),
        ("pictures", _pictures(meta)),
        ("GoPs", f"{len(meta.gops)}, {_span(packets)} packets each"),
        ("c_t", f"{_span(meta.gop_packet_size().round().astype(int))} bytes per packet, mean over the frame's GoP"),
        ("frames", f"{len(seconds)} of {verdict.get('frames', 'an unknown number')}: {types}"),
        ("at", f"{seconds[0]:.2f} to {seconds[-1]:.2f} s" if len(seconds) else "-"),
    ]
    for name in ("innovation", "carried", "motion", "qp", "frames", "mb_bits"):
        rows.append((name if name != "frames" else "pixels", _signal(meta, name)))
    rows += [("warning", text) for text in extraction.get("warnings", ())]
    rows.append(("npz", f"{path}, {_bytes(file_size(path))}, codecmeta {extraction.get('version', 'unknown')}"))
    return rows


def _display(meta: VideoMeta) -> list[tuple[str, str]]:
    """Return how the coded picture is displayed, where that differs from the coded form."""
    wide, tall = meta.display_size
    if (wide, tall) == (meta.width, meta.height) and meta.orientation == UPRIGHT:
        return []
    how = [name for name in ("transposed", "mirrored", "flipped") if getattr(meta.orientation, name)]
    if (ratio := meta.sample_aspect) not in (None, (1, 1)):
        how.append(f"samples of {ratio[0]}:{ratio[1]}")
    return [("display", f"{wide}x{tall} ({', '.join(how)})")]


def _source(meta: VideoMeta, name: str) -> str:
    signal: dict[str, Any] = meta.info["signals"].get(name, {})
    return str(signal.get("source") or f"absent: {signal.get('absent', 'unknown')}")


def _pictures(meta: VideoMeta) -> str:
    """Return types of the packets' pictures, and how many packets show none."""
    if meta.packet_type is None or meta.packet_shown is None:
        return f"types {_source(meta, 'packet_type')}"
    names, counts = np.unique(meta.packet_type, return_counts=True)
    listed = ", ".join(f"{count} {name}" for name, count in zip(names.tolist(), counts.tolist(), strict=True))
    hidden = int(np.count_nonzero(~meta.packet_shown))
    return f"{listed}, {hidden} not shown" if hidden else listed


def _signal(meta: VideoMeta, name: str) -> str:
    text = _source(meta, name)
    arrays = {
        "innovation": meta.energy_innovation,
        "carried": meta.energy_carried,
        "motion": meta.mv,
        "qp": meta.qp,
        "frames": meta.stored("frames") if meta.frames_jpeg is None else meta.frames_jpeg,
        "mb_bits": meta.mb_bits,
    }
    array = arrays[name]
    if array is None:
        return text
    return f"{text}, {'x'.join(str(length) for length in array.shape)}, {_bytes(array.nbytes)}"


def _span(values: Any) -> str:
    if not values.size:
        return "0"
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
