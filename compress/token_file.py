"""Token files, which hold a video's shortened tokens, and writing of files whole or not at all.

A token file is a safetensors file; T frames, V = T N input tokens, V' output tokens:

    tokens          float32 (V', D)
    positions       int64 (V',)       position ids, counted from the video's first token; (3, V') with three axes
    frame           int64 (V',)       frame of each token's anchor, index into frame_seconds
    kind            uint8 (V',)       index into `kinds` of the metadata; absent where all are of one kind
    plan.keep, plan.crow, plan.col, plan.weight     V -> V', see `MergePlan`
    patches.keep, patches.crow, patches.col, patches.weight     patches merged before the encoder, if any
    budgets         int64 (T,)        tokens granted to each frame, where the method has such budgets
    frame_seconds   float64 (T,)      presentation time of each frame

The metadata's one entry `compress` is JSON: format, method, grid, count_in, patches_in, kinds, and sources, which names
by what map patches merged (`rpm`) and tokens were ranked (`density`), and where other signals came from.
"""

from __future__ import annotations

import errno
import io
import json
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from compress.errors import CompressError, ShapeError
from compress.plan import MergePlan
from compress.video import CompressedVideo

FORMAT = "compress.tokens/1"
_PLAN = ("keep", "crow", "col", "weight")


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenFile:
    """The content of a token file, see the module."""

    method: str
    grid: tuple[int, int]
    tokens: Tensor
    positions: Tensor
    frame: Tensor
    plan: MergePlan
    patches: MergePlan | None
    frame_seconds: Tensor
    budgets: Tensor | None
    kind: Tensor | None
    kinds: tuple[str, ...]
    sources: Mapping[str, str]


def write_tokens(path: str | os.PathLike[str], video: CompressedVideo) -> int:
    """Write a token file, whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        OSError: it cannot be written.
    """
    compression, grid = video.compression, video.layout.grid
    plan = compression.plan.to("cpu")
    arrays = {
        "tokens": video.tokens,
        "positions": video.positions,
        "frame": plan.keep // (grid[0] * grid[1]),
        "frame_seconds": torch.from_numpy(video.frame_seconds),
        **{f"plan.{name}": getattr(plan, name) for name in _PLAN},
    }
    if video.patches is not None:
        arrays |= {f"patches.{name}": getattr(video.patches.plan, name) for name in _PLAN}
    if compression.frame_budgets is not None:
        arrays["budgets"] = torch.from_numpy(compression.frame_budgets)
    if compression.kind is not None:
        arrays["kind"] = compression.kind
    about = {
        "format": FORMAT,
        "method": compression.method,
        "grid": grid,
        "count_in": plan.count_in,
        "stochastic": plan.stochastic,
        "patches_in": video.patches.plan.count_in if video.patches is not None else 0,
        "kinds": compression.kinds,
        "sources": dict(video.sources),
    }
    # One entry, because safetensors writes several in an order that changes from run to run.
    metadata = {"compress": json.dumps(about)}
    # Clones, because safetensors refuses arrays that share memory, as those of an identity plan do.
    content = safetensors.torch.save({name: array.cpu().clone() for name, array in arrays.items()}, metadata)
    write_whole(path, content)
    return len(content)


def write_embeddings(path: str | os.PathLike[str], embeddings: Tensor) -> None:
    """Write rows (n, D) as a .npy file, float32, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    file = io.BytesIO()
    np.save(file, embeddings.float().cpu().numpy(), allow_pickle=False)
    write_whole(path, file.getvalue())


def read_tokens(path: str | os.PathLike[str]) -> TokenFile:
    """Read a token file.

    Raises:
        CompressError: it is not one.
        OSError: it cannot be opened.
    """
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            about = json.loads((file.metadata() or {})["compress"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if about["format"] != FORMAT:
            raise CompressError(f"{path} is not a token file: format is {about['format']!r}, not {FORMAT!r}")
        rows, cols = about["grid"]
        merged = "patches.keep" in arrays
        return TokenFile(
            method=str(about["method"]),
            grid=(int(rows), int(cols)),
            tokens=arrays["tokens"],
            positions=arrays["positions"],
            frame=arrays["frame"],
            plan=_plan(arrays, "plan", int(about["count_in"]), stochastic=bool(about.get("stochastic", True))),
            patches=_plan(arrays, "patches", int(about["patches_in"])) if merged else None,
            frame_seconds=arrays["frame_seconds"],
            budgets=arrays.get("budgets"),
            kind=arrays.get("kind"),
            kinds=tuple(map(str, about["kinds"])),
            sources={str(name): str(source) for name, source in dict(about.get("sources", {})).items()},
        )
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, ShapeError) as error:
        raise CompressError(f"{path} is not a token file: {error}") from error


def _plan(arrays: dict[str, Tensor], prefix: str, count_in: int, *, stochastic: bool = True) -> MergePlan:
    keep, crow, col, weight = (arrays[f"{prefix}.{name}"] for name in _PLAN)
    return MergePlan(keep=keep, crow=crow, col=col, weight=weight, count_in=count_in, stochastic=stochastic)


_TEMPORARY = ".compress-*.tmp"
_STALE_SECONDS = 3600.0


def sweep_temporary(folder: Path) -> None:
    """Remove what killed runs left half-written in a folder an hour ago or earlier."""
    # a folder that cannot be read is reported when it is written
    with suppress(OSError, ValueError):
        for path in folder.glob(_TEMPORARY):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole or not at all: next to the target, flushed to disk, then renamed over it.

    Raises:
        OSError: it cannot be written, or is not a regular file but, for example, a device, which a rename would
            replace; no temporary file remains.
    """
    target = Path(path)
    if target.exists() and not target.is_file():
        raise OSError(errno.EEXIST, "it exists and is not a regular file", os.fspath(path))
    temporary = target.with_name(_TEMPORARY.replace("*", secrets.token_hex(8)))
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
