"""Fields of a record: dtype, shape and allowed values of each array."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import MetaFormatError
from codecmeta.record.info_schema import check_info
from codecmeta.record.jpeg import frames_shape
from codecmeta.record.orientation import Orientation

MAX_SIDE = 1 << 16

Array = NDArray[Any]


@dataclass(frozen=True)
class Sizes:
    """Lengths that determine the shapes of a file's arrays."""

    frames: int
    packets: int
    blocks: tuple[int, int]
    macroblocks: tuple[int, int]


@dataclass(frozen=True)
class Field:
    """dtype and shape of one array; -1 allows any length."""

    dtype: str
    shape: Callable[[Sizes], tuple[int, ...]]


FIELDS: dict[str, Field] = {
    "packet_pts": Field("<i8", lambda s: (s.packets,)),
    "packet_dts": Field("<i8", lambda s: (s.packets,)),
    "packet_size": Field("<u4", lambda s: (s.packets,)),
    "packet_key": Field("|b1", lambda s: (s.packets,)),
    "packet_type": Field("<U1", lambda s: (s.packets,)),
    "packet_shown": Field("|b1", lambda s: (s.packets,)),
    "frame_packet": Field("<i4", lambda s: (s.frames,)),
    "frame_pts": Field("<i8", lambda s: (s.frames,)),
    "frame_type": Field("<U1", lambda s: (s.frames,)),
    "energy_innovation": Field("<f4", lambda s: (s.frames, *s.blocks)),
    "energy_carried": Field("<f4", lambda s: (s.frames, *s.blocks)),
    "range_innovation": Field("<f4", lambda s: (s.frames, 2)),
    "range_carried": Field("<f4", lambda s: (s.frames, 2)),
    "residual_power": Field("<f4", lambda s: (s.frames, 3, *s.blocks)),
    "residual_mean": Field("<f4", lambda s: (s.frames, 3, *s.blocks)),
    "mb_bits": Field("<u2", lambda s: (s.frames, *s.macroblocks)),
    "mb_type": Field("|u1", lambda s: (s.frames, *s.macroblocks)),
    "mv_offset": Field("<i8", lambda s: (s.frames + 1,)),
    "mv": Field("<i2", lambda s: (-1, 7)),
    "qp": Field("|i1", lambda s: (s.frames, *s.macroblocks)),
    "frames": Field("|u1", lambda s: (s.frames, -1, -1, 3)),
    "frames_jpeg": Field("|u1", lambda s: (-1,)),
    "frames_jpeg_offset": Field("<i8", lambda s: (s.frames + 1,)),
}
REQUIRED = (
    "packet_pts",
    "packet_dts",
    "packet_size",
    "packet_key",
    "frame_packet",
    "frame_pts",
    "frame_type",
)
OPTIONAL = tuple(name for name in FIELDS if name not in REQUIRED)
# Arrays that are valid only together.
PAIRS = (
    ("packet_type", "packet_shown"),
    ("energy_innovation", "range_innovation"),
    ("energy_carried", "range_carried"),
    ("residual_power", "residual_mean"),
    ("mv_offset", "mv"),
    ("frames_jpeg", "frames_jpeg_offset"),
)
_FINITE = ("energy_innovation", "energy_carried", "range_innovation", "range_carried")


def sizes_of(info: Mapping[str, Any], *, frames: int, packets: int) -> Sizes:
    """Return the lengths that `info` and the tables imply.

    Raises:
        KeyError, TypeError, ValueError: `info` lacks a fact or contains a wrong one.
    """
    check_info(info)
    width, height = info["stream"]["width"], info["stream"]["height"]
    block = info["extraction"]["block"]
    numerator, denominator = info["stream"]["time_base"]
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"picture size {width}x{height} is outside 1..{MAX_SIDE}")
    if block not in (4, 8):
        raise ValueError(f"block is {block}; it must be 4 or 8")
    Orientation.from_matrix(info["stream"]["orientation"], width=width, height=height)
    if numerator < 1 or denominator < 1:
        raise ValueError(f"time_base is {numerator}/{denominator}; both must be positive")
    return Sizes(
        frames=frames,
        packets=packets,
        blocks=(-(-height // block), -(-width // block)),
        macroblocks=(-(-height // 16), -(-width // 16)),
    )


def check(path: str, info: dict[str, Any], arrays: Mapping[str, Array]) -> None:
    """Validate a record before it is written.

    Raises:
        MetaFormatError: the record violates the format; names the field.
    """
    for name in REQUIRED:
        if name not in arrays:
            raise MetaFormatError(path, name, "is missing")
    check_headers(path, info, {name: (array.dtype, array.shape) for name, array in arrays.items()})
    check_values(path, arrays)


def check_headers(
    path: str, info: dict[str, Any], headers: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
) -> None:
    """Validate dtypes and shapes.

    Args:
        path: file to name in errors.
        info: of the record.
        headers: dtype and shape of each array, at least of all required ones.

    Raises:
        MetaFormatError: the record violates the format; names the field.
    """
    frames, packets = headers["frame_pts"][1], headers["packet_pts"][1]
    try:
        sizes = sizes_of(info, frames=frames[0] if frames else 0, packets=packets[0] if packets else 0)
    except KeyError as error:
        raise MetaFormatError(path, "info", f"lacks {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise MetaFormatError(path, "info", f"is wrong: {error}") from error
    for name, (dtype, shape) in headers.items():
        expected = FIELDS[name].shape(sizes)
        fits = len(shape) == len(expected) and all(e in (-1, s) for e, s in zip(expected, shape, strict=True))
        if dtype.str != FIELDS[name].dtype or not fits:
            wanted = tuple("any" if e == -1 else e for e in expected)
            raise MetaFormatError(path, name, f"is {dtype.str} {shape}; expected {FIELDS[name].dtype} {wanted}")
    for first, second in PAIRS:
        if (first in headers) != (second in headers):
            missing = second if first in headers else first
            raise MetaFormatError(path, missing, f"is missing; {first} and {second} are stored together")
    if "frames" in headers and "frames_jpeg" in headers:
        raise MetaFormatError(path, "frames", "are stored twice, as pixels and as JPEG")


def check_values(path: str, arrays: Mapping[str, Array]) -> None:
    """Validate values.

    Raises:
        MetaFormatError: the record violates the format; names the field.
    """

    def fail(name: str, message: str) -> NoReturn:
        raise MetaFormatError(path, name, message)

    packets = arrays["packet_size"].size
    pointer = arrays["frame_packet"]
    if pointer.size and (pointer.min() < 0 or pointer.max() >= packets):
        fail("frame_packet", f"must lie in 0..{packets - 1}")
    pts = arrays["frame_pts"]
    if pts.size > 1 and not (pts[1:] > pts[:-1]).all():
        fail("frame_pts", "must be strictly increasing")
    for name in ("frame_type", "packet_type"):
        if name in arrays and not np.isin(arrays[name], ("I", "P", "B", "?")).all():
            fail(name, "must be I, P, B or ?")
    for name in _FINITE:
        if name in arrays and not (np.isfinite(arrays[name]).all() and (arrays[name] >= 0).all()):
            fail(name, "must be finite and not negative")
        if name in arrays and name.startswith("range") and (arrays[name][:, 0] > arrays[name][:, 1]).any():
            fail(name, "the smallest value must not exceed the largest")
    if "residual_power" in arrays and not (
        np.isfinite(arrays["residual_power"]).all() and np.isfinite(arrays["residual_mean"]).all()
    ):
        fail("residual_power", "residual_power and residual_mean must be finite")
    if "frames" in arrays and 0 in arrays["frames"].shape[1:]:
        fail("frames", "pictures have no pixels")
    if "frames_jpeg" in arrays:
        try:
            frames_shape(arrays["frames_jpeg"], arrays["frames_jpeg_offset"])
        except ValueError as error:
            fail("frames_jpeg", str(error))
    if "mv" in arrays:
        offset, vectors = arrays["mv_offset"], arrays["mv"]
        if offset[0] != 0 or offset[-1] != len(vectors) or (offset[1:] < offset[:-1]).any():
            fail("mv_offset", f"must rise from 0 to {len(vectors)}")
        if not np.isin(vectors[:, 6], (-1, 1)).all():
            fail("mv", "direction must be -1 or +1")
