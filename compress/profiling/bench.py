"""Benchmarks: a synthetic video, figures as a record, and the stages as a picture."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from compress.errors import ConfigError
from compress.methods import build
from compress.picture import require_matplotlib
from compress.profiling.measure import OTHER, STAGES, TTFT_CONTAINS, Case, Measurement, Null
from compress.settings import list_settings

if TYPE_CHECKING:
    from codecmeta import VideoMeta

BLOCK = 8
SIDE = 384


def synthetic_frames(frames: int, *, side: int = SIDE, seed: int = 0) -> NDArray[np.uint8]:
    """Render a static textured background, two objects that move and a cut half-way, uint8 (T, side, side, 3).

    Random frames would be unlike one another, so that nothing would merge and a different path would be timed; flat
    cells without grain would have no texture that ranks patches.
    """
    rng = np.random.default_rng(seed)
    clip = np.empty((frames, side, side, 3), np.uint8)
    cells = side // 16
    scenes = [np.kron(rng.integers(20, 200, (cells, cells, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in "ab"]
    for scene in scenes:
        scene += rng.integers(0, 12, scene.shape, dtype=np.uint8)
    size = side // 6
    sprite = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    for t in range(frames):
        scene = scenes[2 * t // max(frames, 1)]
        clip[t, : scene.shape[0], : scene.shape[1]] = scene
        clip[t, scene.shape[0] :], clip[t, :, scene.shape[1] :] = 0, 0
        for number, (down, across) in enumerate(((side // 5, 7 * t), (3 * side // 5, side - size - 5 * t))):
            left = across % (side - size)
            clip[t, down : down + size, left : left + size] = sprite[number]
    return clip


def synthetic_meta(*, frames: int, side: int = SIDE, seed: int = 0) -> VideoMeta:
    """Build metadata of `synthetic_frames`, with the energy of the differences between frames for residuals."""
    from codecmeta import VideoMeta

    clip = synthetic_frames(frames, side=side, seed=seed)
    change = np.abs(np.diff(clip.astype(np.float32), axis=0, prepend=clip[:1])).mean(axis=3)
    change += 0.1 * np.abs(np.diff(clip.astype(np.float32).mean(axis=3), axis=2, prepend=0))
    energy = change.reshape(frames, side // BLOCK, BLOCK, side // BLOCK, BLOCK).mean(axis=(2, 4))
    extent = np.stack((energy.min(axis=(1, 2)), energy.max(axis=(1, 2))), axis=1)
    order = np.arange(frames)
    stream = {
        "width": side,
        "height": side,
        "orientation": [[1, 0, 0], [0, 1, 0]],
        "time_base": [1, 1],
        "duration_s": float(frames),
    }
    info: dict[str, Any] = {
        "source": {"name": "synthetic"},
        "stream": stream,
        "extraction": {"block": BLOCK},
        "signals": {"carried": "synthetic"},
    }
    return VideoMeta(
        info=info,
        packet_pts=order.astype(np.int64),
        packet_dts=order.astype(np.int64),
        packet_size=(2000 + 500 * (order % 7) + 20000 * (order % 8 == 0)).astype(np.uint32),
        packet_key=order % 8 == 0,
        frame_packet=order.astype(np.int32),
        frame_pts=order.astype(np.int64),
        frame_type=np.where(order % 8 == 0, "I", "P"),
        energy_carried=energy.astype(np.float32),
        range_carried=extent.astype(np.float32),
        frames=clip,
    )


def plan_cases(
    methods: Sequence[str], retentions: Sequence[float], *, settings: Mapping[str, str] | None = None
) -> list[Case]:
    """List the plain model, the null case, and every method at every retention.

    Args:
        methods: names, see `compress.methods`.
        retentions: retained fractions.
        settings: fields as text, for the methods that have them.

    Raises:
        ConfigError: a method is unknown, no method has a field, or a value is not allowed.
    """
    given = settings or {}
    known = {name: {setting.name for setting in list_settings(build(name))} for name in methods}
    if idle := [name for name in given if not any(name in fields for fields in known.values())]:
        raise ConfigError(f"none of the methods {', '.join(methods)} has a field {', '.join(map(repr, idle))}")
    cases = [Case(name="uncompressed", compressor=None), Case(name="null", compressor=Null())]
    for name in methods:
        own = {field: value for field, value in given.items() if field in known[name]}
        for share in retentions:
            compressor = build(name, retention=share, settings=own)
            cases.append(Case(name=f"{name} {share:g}", compressor=compressor, retention=share))
    return cases


def describe(found: Sequence[Measurement], *, model: str, device: str) -> dict[str, Any]:
    """Describe figures with the machine and the versions they belong to, ready for JSON."""
    import transformers

    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "model": model,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "accelerator": accelerator,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "ttft": TTFT_CONTAINS,
        "cases": [dataclasses.asdict(one) for one in found],
    }


def draw(found: Sequence[Measurement], path: str | os.PathLike[str]) -> None:
    """Draw the stages of every case as stacked bars, a PNG.

    Raises:
        ConfigError: pictures cannot be drawn here, or no measurement is given.
    """
    require_matplotlib()
    if not found:
        raise ConfigError("no measurements are given; give at least one to draw")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.4 * len(found) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    names = [one.name for one in found]
    left = np.zeros(len(found))
    for stage in (*STAGES, OTHER):
        width = np.array([max(1000 * one.seconds.get(stage, 0.0), 0.0) for one in found])
        axes.barh(names, width, left=left, label=stage)
        left += width
    axes.invert_yaxis()
    axes.set_xlabel("time to first token, ms")
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path)
