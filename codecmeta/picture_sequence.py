"""Picture sequences without a video: arrays in memory, and folders of pictures.

Nothing was coded, so the residual and the sizes of packets are those of the proxy: each sampled frame is encoded after
its predecessor in the sequence, as `codecmeta.residual.proxy` does with the pictures of other codecs. A sampled frame
is a GoP of two packets, its predecessor as an intra picture and itself; the first frame of the sequence is an intra
picture.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from codecmeta.container.pyav import frame_of_rgb
from codecmeta.decoding.rgb import to_rgb
from codecmeta.errors import SourceError, UsageError
from codecmeta.picture_folder import PictureFolder
from codecmeta.provenance import describe_extraction
from codecmeta.record.limits import Limits
from codecmeta.record.meta import VideoMeta
from codecmeta.record.options import MapChoice, Options
from codecmeta.record.orientation import UPRIGHT, display_aspect
from codecmeta.record.sampling import choose_frames
from codecmeta.residual.proxy import ProxySource

DEFAULT_FPS = 25.0
"""Default frames per second of folders of pictures."""

_SMALL_PICTURE = 288
_CHANNELS = 3
_WARNING = "the frames come without a video: residual and packet sizes are those of the proxy"
_NOT_CODED = "the frames were never coded, and the proxy keeps none"


def from_frames(
    frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    fps: float,
    *,
    sampling: str | Sequence[int] = "uniform:32",
    maps: Sequence[MapChoice] = ("innovation",),
    pixels: int | None = 384,
    name: str = "frames",
    limits: Limits | None = None,
) -> VideoMeta:
    """Make the record of frames that come without a video.

    Args:
        frames: uint8 (N, H, W, 3), R, G, B, or a sequence of (H, W, 3).
        fps: frames per second.
        sampling: frames to sample, as `frames` of `extract`.
        maps: `innovation`, or nothing; the carried map needs motion, which is unknown.
        pixels: short side of the cached RGB frames; None caches none.
        name: name in the record in place of a file name.
        limits: the largest demands that the frames may make, None for the defaults of `Limits`.

    Raises:
        UsageError: the frames are not RGB pictures of one size, the rate is not positive, or an option is not allowed.
        SourceError: a limit is exceeded, or libav has no libx264 (`decoder_missing`).
    """
    options = Options(frames=sampling, residual="proxy", maps=maps, pixels=pixels)
    if len(frames) == 0:
        raise UsageError("frames is empty; allowed are one or more of shape (H, W, 3)")
    shape = frames[0].shape
    for number, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != _CHANNELS or frame.shape[2] != _CHANNELS or frame.shape != shape:
            given = f"{frame.dtype} {frame.shape}"
            raise UsageError(f"frames[{number}] is {given}; allowed are uint8 (H, W, 3), all of one size")
    size = sum(frame.nbytes for frame in frames)
    source = {"name": name, "bytes": size}
    return _record(_Arrays(frames), fps, source=source, container="frames", options=options, limits=limits or Limits())


def extract_pictures(path: str | os.PathLike[str], options: Options, limits: Limits) -> VideoMeta:
    """Extract the record of a folder of pictures, in the order of the numbers in their names.

    Raises:
        UsageError: an option selects no frame.
        SourceError: the folder holds no pictures of one size that can be read.
    """
    folder = PictureFolder(path, limits)
    identity = folder.identify()
    record = _record(
        folder,
        DEFAULT_FPS if options.fps is None else options.fps,
        source=identity,
        container="folder of pictures",
        options=options,
        limits=limits,
    )
    if folder.identify() != identity:
        raise SourceError("changed_while_reading", "the folder changed while it was read")
    return record


class _Arrays:
    """Arrays as pictures of libav."""

    def __init__(self, frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> av.VideoFrame:
        return frame_of_rgb(self._frames[number])


def _record(
    pictures: _Arrays | PictureFolder,
    fps: float,
    *,
    source: dict[str, Any],
    container: str,
    options: Options,
    limits: Limits,
) -> VideoMeta:
    if not 0 < fps < float("inf"):
        raise UsageError(f"fps={fps}; allowed are numbers greater than 0")
    count = len(pictures)
    if count > limits.frames:
        raise SourceError("limit_exceeded", f"{count} frames; allowed are {limits.frames}")
    rate = Fraction(fps).limit_denominator(1_000_000)
    key = np.zeros(count, np.bool_)
    key[0] = True
    spec = options.frames if isinstance(options.frames, str) else tuple(options.frames)
    chosen = choose_frames(spec, np.arange(count) / float(rate), key)
    first = pictures[int(chosen[0])]
    width, height = first.width, first.height
    if width * height > limits.pixels:
        raise SourceError("limit_exceeded", f"a frame has {width * height} pixels; allowed are {limits.pixels}")
    block: Literal[4, 8] = 4 if min(width, height) < _SMALL_PICTURE else 8
    _check_bytes(len(chosen), width, height, block, options, limits)
    proxy = _open_proxy(width, height)
    packets: list[tuple[int, int, bool]] = []
    energies, shown, rows = [], [], []
    for number in chosen.tolist():
        picture = first if number == chosen[0] else pictures[number]
        before = pictures[number - 1] if number else None
        energy, sizes = proxy.encode(picture, before, block=block)
        times = [number - 1, number] if number else [number]
        packets += [(time, size, not place) for place, (time, size) in enumerate(zip(times, sizes, strict=True))]
        rows.append(len(packets) - 1)
        energies.append(energy)
        if options.pixels is not None:
            shown.append(to_rgb(picture, short_side=options.pixels))
    wanted = "innovation" in options.chosen_maps
    pts = np.array([time for time, _, _ in packets], np.int64)
    info = {
        "source": source,
        "stream": _describe_stream(first, container, count, rate, len(packets)),
        "verdict": _describe_verdict(len(packets), rows, count),
        "signals": _describe_signals(options, container),
        "extraction": describe_extraction(options, frames=len(rows), block=block, warnings=[_WARNING]),
    }
    meta = VideoMeta(
        info=info,
        packet_pts=pts,
        packet_dts=pts,
        packet_size=np.array([size for _, size, _ in packets], np.uint32),
        packet_key=np.array([key for _, _, key in packets], np.bool_),
        frame_packet=np.array(rows, np.int32),
        frame_pts=chosen,
        frame_type=np.array(["P" if number else "I" for number in chosen], "<U1"),
        energy_innovation=np.stack([one.energy for one in energies]) if wanted else None,
        range_innovation=np.stack([one.range for one in energies]) if wanted else None,
        residual_power=np.stack([one.power for one in energies]) if wanted else None,
        residual_mean=np.stack([one.mean for one in energies]) if wanted else None,
        frames=np.stack(shown) if shown else None,
    )
    return meta if options.jpeg is None else meta.with_jpeg(options.jpeg)


def _open_proxy(width: int, height: int) -> ProxySource:
    try:
        av.codec.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError as error:
        raise SourceError("decoder_missing", "this libav has no libx264, which frames without a video need") from error
    return ProxySource(width=width, height=height)


def _check_bytes(frames: int, width: int, height: int, block: int, options: Options, limits: Limits) -> None:
    """Refuse output that would not fit the record, before it is encoded."""
    size = frames * -(-width // block) * -(-height // block) * 28
    if options.pixels is not None:
        scale = min(1.0, options.pixels / min(width, height))
        size += int(frames * width * scale * height * scale * 3)
    if size > limits.bytes:
        raise SourceError(
            "limit_exceeded",
            f"the record of {frames} frames takes {size} bytes; allowed are {limits.bytes}; choose fewer frames, omit "
            "pixels or maps, or raise the limit",
        )


def _describe_stream(
    picture: av.VideoFrame, container: str, count: int, rate: Fraction, packets: int
) -> dict[str, Any]:
    size = (picture.width, picture.height)
    return {
        "index": 0,
        "container": container,
        "codec": "none",
        "profile": None,
        "width": picture.width,
        "height": picture.height,
        "pixel_format": picture.format.name,
        "bit_depth": picture.format.components[0].bits,
        "chroma": "unknown",
        "fps": float(rate),
        "time_base": [rate.denominator, rate.numerator],
        "duration_s": float(count / rate),
        "orientation": UPRIGHT.matrix(width=picture.width, height=picture.height),
        "sar": [1, 1],
        "display_aspect": list(display_aspect(*size, orientation=UPRIGHT, sample_aspect=(1, 1))),
        "packets": packets,
    }


def _describe_verdict(packets: int, rows: Sequence[int], count: int) -> dict[str, Any]:
    nothing = ("leading", "hidden", "field_pairs", "corrupt_packets", "unreadable_packets", "decode_errors")
    return {
        "state": "complete",
        "evidence": "frames, not a file: the packets are those of the proxy",
        "checked": len(rows),
        "packets": packets,
        "gops": len(rows),
        "frames": count,
        **dict.fromkeys(nothing, 0),
        "pictures_decoded": len(rows),
        "corrupt_pictures": 0,
        "missing_frames": 0,
    }


def _describe_signals(options: Options, container: str) -> dict[str, dict[str, Any]]:
    signals: dict[str, dict[str, Any]] = {
        "packets": {"source": "proxy"},
        "frames": {"source": container} if options.pixels is not None else {"absent": "not asked for (pixels none)"},
    }
    made = "innovation" in options.chosen_maps
    signals["innovation"] = {"source": "proxy"} if made else {"absent": "not asked for (maps)"}
    for name in ("carried", "mb_bits", "mb_type", "motion", "qp"):
        signals[name] = {"absent": _NOT_CODED}
    return signals
