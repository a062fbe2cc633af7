"""VideoMeta, the record of one video, and its .npz file."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from codecmeta.errors import MetaFormatError, UsageError
from codecmeta.record import gop, npz
from codecmeta.record.density import Box
from codecmeta.record.density_maps import TEXTURE_BLOCK, DensityMap, list_maps, measure_density
from codecmeta.record.fields import FIELDS, OPTIONAL
from codecmeta.record.jpeg import decode_frames, encode_frames
from codecmeta.record.options import JpegQuality
from codecmeta.record.orientation import Orientation, display_size
from codecmeta.storage.address import is_url
from codecmeta.storage.objects import set_object

if TYPE_CHECKING:
    from codecmeta.record.energy import EnergyMap

MapName = Literal["innovation", "carried"]

MISSING = -(2**63)
"""Time stamp of a packet that has none."""


class CachedFrames:
    """Field `frames` of a record, which decodes JPEG pictures when it is read, once."""

    def __get__(self, record: VideoMeta | None, kind: type[VideoMeta]) -> NDArray[np.uint8] | None:
        """Return the pixels; of the class, the default of the field."""
        if record is None:
            return None
        frames = record.stored("frames")
        if frames is None and record.frames_jpeg is not None and record.frames_jpeg_offset is not None:
            frames = record.stored("_decoded")
            if frames is None:
                try:
                    frames = decode_frames(record.frames_jpeg, record.frames_jpeg_offset)
                except ValueError as error:
                    raise MetaFormatError(record.info["source"]["name"], "frames_jpeg", str(error)) from error
                record.__dict__["_decoded"] = frames
        return frames

    def __set__(self, record: VideoMeta, frames: NDArray[np.uint8] | None) -> None:
        """Store pixels."""
        record.__dict__["frames"] = frames


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMeta:
    """Metadata that one video's codec already computed, for T sampled frames and P packets.

    The fields are the arrays of the .npz, one to one; an optional array that was not extracted is None. H and W are
    the display height and width in coded orientation, b the block size `block`.

    Attributes:
        info: `source`, `stream`, `verdict`, `signals` and `extraction` (see docs/format.md).
        packet_pts: int64 (P,) in decode order, in `time_base`; MISSING where the container gives none.
        packet_dts: int64 (P,), likewise.
        packet_size: uint32 (P,), bytes.
        packet_key: bool (P,), the packet starts a GoP.
        packet_type: `<U1` (P,): I, P, B, or ? where a header cannot be read; None for codecs whose headers are not read
            (all but H.264, HEVC, VP8, VP9 and AV1), and where no payload is read.
        packet_shown: bool (P,), the packet shows a picture, according to its headers; present with `packet_type`.
        frame_packet: int32 (T,), packet of each sampled frame.
        frame_pts: int64 (T,), strictly increasing.
        frame_type: `<U1` (T,): I, P, B, or ? where unknown.
        energy_innovation: float32 (T, ⌈H/b⌉, ⌈W/b⌉), block means of E of the residual coded in this picture.
        energy_carried: likewise, of the residual of everything on screen, accumulated since the last intra block.
        range_innovation: float32 (T, 2), smallest and largest E of the innovation, over pixels.
        range_carried: float32 (T, 2), likewise of the carried map, over its 4x4 cells.
        residual_power: float32 (T, 3, ⌈H/b⌉, ⌈W/b⌉), block means of r² of Y, Cb, Cr.
        residual_mean: float32 (T, 3, ⌈H/b⌉, ⌈W/b⌉), block means of r.
        mb_bits: uint16 (T, ⌈H/16⌉, ⌈W/16⌉), bits spent on each macroblock, 65535 for more.
        mb_type: uint8 (T, ⌈H/16⌉, ⌈W/16⌉), kind of each macroblock (codecmeta.record.macroblock_types).
        mv_offset: int64 (T + 1,), where each frame's vectors begin in `mv`.
        mv: int16 (n, 7): x, y, w, h of the block in luma samples, dx, dy in quarter samples, direction
            (-1 list 0, +1 list 1).
        qp: int8 (T, ⌈H/16⌉, ⌈W/16⌉), quantiser of each macroblock.
        frames: uint8 (T, h, w, 3), RGB as displayed. Of a record that holds them as JPEG, they are decoded when they
            are first read.
        frames_jpeg: uint8 (n,), the frames as JPEG, one after the other; None where `frames` holds their pixels.
        frames_jpeg_offset: int64 (T + 1,), where each picture begins in `frames_jpeg`.
    """

    info: dict[str, Any]
    packet_pts: NDArray[np.int64]
    packet_dts: NDArray[np.int64]
    packet_size: NDArray[np.uint32]
    packet_key: NDArray[np.bool_]
    frame_packet: NDArray[np.int32]
    frame_pts: NDArray[np.int64]
    frame_type: NDArray[np.str_]
    packet_type: NDArray[np.str_] | None = None
    packet_shown: NDArray[np.bool_] | None = None
    energy_innovation: NDArray[np.float32] | None = None
    energy_carried: NDArray[np.float32] | None = None
    range_innovation: NDArray[np.float32] | None = None
    range_carried: NDArray[np.float32] | None = None
    residual_power: NDArray[np.float32] | None = None
    residual_mean: NDArray[np.float32] | None = None
    mb_bits: NDArray[np.uint16] | None = None
    mb_type: NDArray[np.uint8] | None = None
    mv_offset: NDArray[np.int64] | None = None
    mv: NDArray[np.int16] | None = None
    qp: NDArray[np.int8] | None = None
    frames: NDArray[np.uint8] | None = CachedFrames()  # type: ignore[assignment]
    frames_jpeg: NDArray[np.uint8] | None = None
    frames_jpeg_offset: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        # a copy with other pixels, such as dataclasses.replace makes
        if self.stored("frames") is not None:
            object.__setattr__(self, "frames_jpeg", None)
            object.__setattr__(self, "frames_jpeg_offset", None)

    def __repr__(self) -> str:
        arrays = [name for name in OPTIONAL if self.stored(name) is not None]
        return (
            f"VideoMeta({self.info['source']['name']!r}, {self.width}x{self.height}, "
            f"{len(self.frame_pts)} frames of {len(self.packet_size)} packets, {', '.join(arrays)})"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays as they are stored."""
        return sum(array.nbytes for name in FIELDS if (array := self.stored(name)) is not None)

    def stored(self, name: str) -> NDArray[Any] | None:
        """Return an array as it is stored, None where it is not: `frames` of JPEG pictures are not decoded."""
        found: NDArray[Any] | None = self.__dict__.get(name)
        return found

    @property
    def has_frames(self) -> bool:
        """Whether frames are cached, in whatever form."""
        return self.stored("frames") is not None or self.frames_jpeg is not None

    def with_jpeg(self, quality: JpegQuality = "auto") -> VideoMeta:
        """Return this record with its frames as JPEG.

        Args:
            quality: 1 to 100, or `auto`, see `Options.jpeg`.
        """
        if self.frames is None:
            return self
        data, offset = encode_frames(self.frames, quality=quality)
        return replace(self, frames=None, frames_jpeg=data, frames_jpeg_offset=offset)

    @property
    def width(self) -> int:
        """Picture width in luma samples, coded orientation."""
        return int(self.info["stream"]["width"])

    @property
    def height(self) -> int:
        """Picture height in luma samples, coded orientation."""
        return int(self.info["stream"]["height"])

    @property
    def block(self) -> int:
        """Luma samples per side of a block of the energy maps."""
        return int(self.info["extraction"]["block"])

    @property
    def orientation(self) -> Orientation:
        """Rotation and mirroring of the coded picture for display."""
        return Orientation.from_matrix(self.info["stream"]["orientation"], width=self.width, height=self.height)

    @property
    def sample_aspect(self) -> tuple[int, int] | None:
        """Width and height of a sample of the coded picture; None where they are unknown."""
        ratio = self.info["stream"].get("sar")
        return None if ratio is None else (int(ratio[0]), int(ratio[1]))

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height of the displayed picture in square pixels; the height is the coded one."""
        return display_size(self.width, self.height, orientation=self.orientation, sample_aspect=self.sample_aspect)

    @property
    def frame_seconds(self) -> NDArray[np.float64]:
        """Presentation time of each sampled frame in seconds, float64 (T,)."""
        numerator, denominator = self.info["stream"]["time_base"]
        seconds: NDArray[np.float64] = self.frame_pts.astype(np.float64) * (numerator / denominator)
        return seconds

    @cached_property
    def gops(self) -> tuple[gop.Gop, ...]:
        """The stream's GoPs in decode order."""
        return gop.split_gops(self.packet_size, self.packet_key)

    def shown_packet_size(self) -> NDArray[np.int64]:
        """Return the bytes per shown picture: see `codecmeta.record.gop.shown_packet_size`. int64 (P,)."""
        return gop.shown_packet_size(self.packet_size, self.packet_shown)

    def gop_packet_size(self, *, kind: gop.PacketSizeKind = "mean") -> NDArray[np.float64]:
        """Return MeToM's c_t: see `codecmeta.record.gop.frame_packet_size`. float64 (T,), bytes."""
        return gop.frame_packet_size(
            self.packet_size, self.packet_key, self.frame_packet, shown=self.packet_shown, kind=kind
        )

    @cached_property
    def density_maps(self) -> tuple[DensityMap, ...]:
        """Names of the maps that `density` can measure from what this record holds."""
        return list_maps(self)

    @cached_property
    def texture(self) -> EnergyMap:
        """Return the texture energy of the cached frames on 4x4 blocks: see `codecmeta.record.texture`.

        Raises:
            UsageError: no frames are cached.
        """
        from codecmeta.record.texture import texture_energy

        if self.frames is None:
            raise UsageError(f"the record of {self.info['source']['name']} has no frames; extract it with --pixels 384")
        return texture_energy(self.frames, block=TEXTURE_BLOCK)

    def density(
        self, grid: tuple[int, int], box: Box | None = None, *, map: DensityMap = "innovation"
    ) -> NDArray[np.float32]:
        """Return MeToM's S_t on a patch grid: see `codecmeta.record.density`.

        Args:
            grid: rows and columns of patches on the displayed picture.
            box: left, top, right, bottom of the region the grid covers, in pixels of a picture of `display_size`;
                None is the whole picture.
            map: name of the map, see `codecmeta.record.density_maps`: `innovation`, `carried`, `texture`, `bits`,
                `texture-coded`, `texture-innovation`, `texture-bits`. `density_maps` lists those that this record has.

        Returns:
            float32 (T, rows, cols) in [0, 1]; all ones where a frame's map is flat.

        Raises:
            UsageError: the record lacks arrays of the map, the grid is empty, or the box is outside the picture.
        """
        try:
            return measure_density(self, map, grid, box)
        except UsageError:
            raise
        except ValueError as error:
            raise UsageError(str(error)) from error

    def displayed_vectors(self, index: int) -> NDArray[np.float32]:
        """Return the motion vectors of a sampled frame on the displayed picture.

        Args:
            index: number of the sampled frame.

        Returns:
            float32 (n, 7): x, y of the block's upper left corner, its w and h, dx and dy, all in pixels of a picture of
            `display_size`, and the direction: the block at x, y is predicted from x + dx, y + dy.

        Raises:
            UsageError: motion vectors were not extracted.
        """
        if self.mv is None or self.mv_offset is None:
            raise UsageError("this VideoMeta has no motion vectors; extract it with --motion")
        vectors = self.mv[self.mv_offset[index] : self.mv_offset[index + 1]].astype(np.float64)
        x, y, w, h, dx, dy, direction = vectors.T
        orientation, (wide, tall) = self.orientation, self.display_size
        x0, y0 = orientation.turn_points(x, y, width=self.width, height=self.height)
        x1, y1 = orientation.turn_points(x + w, y + h, width=self.width, height=self.height)
        dx, dy = orientation.turn_points(dx / 4, dy / 4, width=0, height=0)
        across, down = orientation.swap(self.width, self.height)
        corners = np.minimum(x0, x1), np.minimum(y0, y1), np.abs(x1 - x0), np.abs(y1 - y0), dx, dy
        scales = (wide / across, tall / down) * 3
        lengths = [values * scale for values, scale in zip(corners, scales, strict=True)]
        return np.stack([*lengths, direction], axis=1).astype(np.float32)

    def save(self, path: str | os.PathLike[str], *, deflate: bool | None = None) -> None:
        """Write the .npz completely or not at all.

        Args:
            path: the file, whose folder must exist, or its URL.
            deflate: compress the arrays; None compresses those of a record whose frames are JPEG.

        Raises:
            OSError: the file cannot be written.
            MetaFormatError: the record violates the format.
        """
        if is_url(path):
            set_object(path, self.encode(path, deflate=deflate))
        else:
            npz.write(path, self.info, self._arrays(), deflate=self._deflates(deflate))

    def encode(self, name: str, *, deflate: bool | None = None) -> bytes:
        """Return the bytes of the .npz, which messages call `name`; `deflate` as in `save`.

        Raises:
            MetaFormatError: the record violates the format.
        """
        return npz.encode(name, self.info, self._arrays(), deflate=self._deflates(deflate))

    @staticmethod
    def decode(name: str, data: bytes, *, max_bytes: int = npz.MAX_BYTES) -> VideoMeta:
        """Read what `encode` returned; see `load`.

        Args:
            name: what messages call the record.
            data: the bytes of the .npz.
            max_bytes: refuse a record whose arrays take more memory than this.

        Raises:
            MetaFormatError: they are not a valid record.
        """
        info, arrays = npz.read_from(io.BytesIO(data), name, size=len(data), max_bytes=max_bytes)
        return VideoMeta(info=info, **arrays)

    def _deflates(self, asked: bool | None) -> bool:
        return self.frames_jpeg is not None if asked is None else asked

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {name: self.stored(name) for name in FIELDS}
        return {name: array for name, array in arrays.items() if array is not None}


def load(path: str | os.PathLike[str], *, max_bytes: int = npz.MAX_BYTES) -> VideoMeta:
    """Read a .npz written by `VideoMeta.save`.

    Args:
        path: the file, or its URL.
        max_bytes: refuse a file whose arrays take more memory than this.

    Raises:
        MetaFormatError: the file is not a valid VideoMeta; names the file and the field.
        OSError: the file cannot be opened.
        SourceError: likewise, by URL.
    """
    info, arrays = npz.read(path, max_bytes=max_bytes)
    return VideoMeta(info=info, **arrays)
