"""Where a picture's residual comes from: one interface, several sources, best first.

`bitstream` reads the residual that the encoder wrote from the picture's own packet (H.264). `motion` subtracts the
motion-compensated prediction from the decoded picture (decoders that export vectors). `proxy` encodes the picture
and its predecessor again and reads that bitstream (anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta import motion
from codecmeta.carried import CarriedState, from_block_means, innovation
from codecmeta.compensation import MotionField, MotionResidual, Reference, motion_residual
from codecmeta.container import Video
from codecmeta.decode import Picture
from codecmeta.energy import BlockEnergy, measure_energy
from codecmeta.errors import BitstreamError, SourceError, UsageError
from codecmeta.h264 import nal
from codecmeta.h264.motion import FrameMotion, MotionReader
from codecmeta.h264.parameter_sets import read_sequence_parameters
from codecmeta.h264.picture import PictureCells, PictureMoments
from codecmeta.h264.reader import ResidualReader
from codecmeta.motion_field import nearest_field
from codecmeta.options import ResidualChoice
from codecmeta.prediction import Standard
from codecmeta.references import Decoded
from codecmeta.rounding import h263_rounding_type, rounding_type, video_object_layer
from codecmeta.selection import FUTURE, PAST
from codecmeta.texture import Residual

SourceName = Literal["bitstream", "motion", "proxy"]
Context = Literal["nothing", "references", "predecessor"]

STANDARDS: dict[str, Standard] = {
    "h264": "h264",
    "mpeg1video": "mpeg1",
    "mpeg2video": "mpeg2",
    "mpeg4": "mpeg4",
    "h263": "h263",
    "flv1": "h263",
}
"""Codecs whose decoders export motion vectors, and whose prediction is known."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a source may look at for one picture.

    Attributes:
        payload: the picture's packet.
        picture: the decoded picture; None for sources whose context is `nothing`.
        rank: place of the picture in presentation order.
        past: reference pictures shown before it, nearest first; or its predecessor alone.
        future: reference pictures shown after it, likewise.
    """

    payload: bytes
    picture: Picture | None = None
    rank: int = 0
    past: Sequence[Decoded] = ()
    future: Sequence[Decoded] = ()

    @property
    def vectors(self) -> NDArray[np.int16] | None:
        """Motion vectors of the picture, where its decoder exports them."""
        return None if self.picture is None else self.picture.vectors

    @property
    def qp(self) -> NDArray[np.int8] | None:
        """Quantisers of the picture, likewise."""
        frame = None if self.picture is None else self.picture.frame
        return None if frame is None else motion.quantisers(frame, frame.width, frame.height)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The residual of one picture, reduced.

    Attributes:
        energy: block means for the `innovation` map; None if not asked for.
        cells: moments on 4x4 cells for the `carried` map; None if not asked for.
        field: where cells are predicted from; None if not asked for.
        type: I, P or B where the source knows it.
        mb_bits: uint16 (⌈H/16⌉, ⌈W/16⌉), where the source knows it.
        mb_type: uint8, likewise.
        qp: int8, likewise.
        vectors: int16 (n, 7) as `motion.vectors` gives them, likewise; empty where nothing is predicted from another
            picture.
    """

    energy: BlockEnergy | None = None
    cells: CarriedState | None = None
    field: MotionField | None = None
    type: str | None = None
    mb_bits: NDArray[np.uint16] | None = None
    mb_type: NDArray[np.uint8] | None = None
    qp: NDArray[np.int8] | None = None
    vectors: NDArray[np.int16] | None = None


class ResidualSource(Protocol):
    """Reads the residual of one picture after another of one video."""

    @property
    def name(self) -> SourceName:
        """Its name in options and in `info`."""
        ...

    @property
    def context(self) -> Context:
        """Which decoded pictures it needs beside the packet."""
        ...

    def restart(self) -> None:
        """Forget what came before: the next packet need not follow the last one."""
        ...

    def observe(self, payload: bytes) -> None:
        """Take from a packet what later pictures depend on; a picture that is read may have been observed."""
        ...

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read one picture.

        Args:
            evidence: the picture and what its context asks for.
            block: luma samples per block side of the energy.
            energy: whether the energy is wanted.
            cells: whether moments on 4x4 cells and the motion field are wanted.

        Raises:
            SourceError: the residual of this picture cannot be had from this source.
        """
        ...


def choose_sources(choice: ResidualChoice, codec: str) -> tuple[SourceName, ...]:
    """The sources to try for a stream, best first; empty for `none`.

    Raises:
        SourceError: the named source does not work for this codec.
    """
    if choice == "none":
        return ()
    fitting: list[SourceName] = []
    if codec == "h264":
        fitting.append("bitstream")
    if codec in STANDARDS:
        fitting.append("motion")
    if choice == "auto":
        # some pictures of the MPEG family come without vectors
        return tuple(fitting) if codec == "h264" else (*fitting, "proxy")
    if choice not in (*fitting, "proxy"):
        allowed = ", ".join(("auto", *fitting, "proxy", "none"))
        raise SourceError("no_signal", f"residual {choice!r} is not to be had of {codec}; allowed are {allowed}")
    return (choice,)


def cuts_left_or_top(video: Video) -> bool:
    """Whether an H.264 stream's pictures begin elsewhere than at the first coded sample."""
    if video.codec != "h264":
        return False
    try:
        _, units = nal.read_extradata(bytes(video.stream.codec_context.extradata or b""))
        crops = [read_sequence_parameters(unit.rbsp()).crop for unit in units if unit.kind == nal.SPS]
    except BitstreamError:
        return True
    return any(left or top for left, _, top, _ in crops)


def is_reference(video: Video, picture: Picture) -> bool:
    """Whether later pictures may refer to this one."""
    if video.codec != "h264":
        return picture.type != "B"
    extradata = bytes(video.stream.codec_context.extradata or b"")
    length_size = (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0
    try:
        units = nal.split(picture.payload, length_size)
        return next((unit.ref_idc > 0 for unit in units if nal.SLICE <= unit.kind <= nal.IDR_SLICE), True)
    except BitstreamError:
        return True


@dataclass(kw_only=True)
class BitstreamSource:
    """The residual that the encoder wrote, by entropy decoding (H.264).

    With `vectors`, the motion as well: then all packets are shown to it in decode order, but for those of pictures that
    nothing refers to.
    """

    width: int
    height: int
    extradata: bytes
    vectors: bool = False
    name: SourceName = field(default="bitstream", init=False)
    context: Context = field(default="nothing", init=False)

    def __post_init__(self) -> None:
        self.reader = ResidualReader(self.extradata, motion=self.vectors)
        self._motion = MotionReader(self.reader)
        self._followed: tuple[bytes, FrameMotion | None] = b"", None

    def restart(self) -> None:
        """See `ResidualSource`."""
        self._motion.restart()

    def observe(self, payload: bytes) -> None:
        """See `ResidualSource`; what is wrong with a packet is told when its picture is read."""
        with suppress(BitstreamError):
            self.reader.observe(payload)
        if self.vectors:
            self._follow(payload)

    def _follow(self, payload: bytes) -> FrameMotion | None:
        """The frame of a packet among its references, None if it is not known."""
        if self._followed[0] is not payload:
            frame = None
            with suppress(BitstreamError):
                frame = self._motion.follow(payload)
            self._followed = payload, frame
        return self._followed[1]

    def _prepare(self, payload: bytes) -> FrameMotion | None:
        """The same, ready to be read."""
        frame = self._follow(payload) if self.vectors else None
        if frame is not None:
            try:
                self._motion.prepare(frame)
            except BitstreamError:
                return None
        return frame

    def _vectors(self, frame: FrameMotion | None) -> NDArray[np.int16] | None:
        """Vectors of the frame that was read last."""
        coded = self.reader.latest
        if frame is None or coded is None:
            return None
        try:
            return self._motion.list_vectors(self._motion.derive(frame, coded), coded)
        except BitstreamError:
            return None

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """See `ResidualSource`."""
        measured: PictureMoments | PictureCells
        frame = self._prepare(evidence.payload)
        if energy:
            measured = self.reader.measure(evidence.payload, block=block, cells=cells)
            self._check(measured.energy.energy.shape, block)
        else:
            measured = self.reader.measure_cells(evidence.payload)
            self._check(measured.cells.shape[2:], 4)
        state = motion_field = None
        if cells and measured.cells is not None:
            state = from_block_means(*measured.cells)
            motion_field = nearest_field(
                evidence.vectors,
                width=self.width,
                height=self.height,
                past=len(evidence.past),
                future=len(evidence.future),
            )
        return Reading(
            energy=measured.energy if isinstance(measured, PictureMoments) else None,
            cells=state,
            field=motion_field,
            type="B" if "B" in measured.slice_types else "P" if "P" in measured.slice_types else "I",
            mb_bits=measured.mb_bits,
            mb_type=measured.mb_type,
            qp=measured.qp,
            vectors=self._vectors(frame),
        )

    def _check(self, shape: tuple[int, ...], block: int) -> None:
        if shape != (-(-self.height // block), -(-self.width // block)):
            blocks = "x".join(str(count) for count in shape[::-1])
            raise SourceError(
                "varying_geometry", f"a picture of {blocks} blocks in a stream of {self.width}x{self.height}"
            )


@dataclass(kw_only=True)
class MotionSource:
    """Decoded picture minus its motion-compensated prediction."""

    width: int
    height: int
    codec: str
    extradata: bytes
    name: SourceName = field(default="motion", init=False)
    context: Context = field(default="references", init=False)

    def __post_init__(self) -> None:
        self._room: Residual | None = None
        self.layer = video_object_layer(self.extradata) if self.codec == "mpeg4" else None
        self.standard = STANDARDS[self.codec]
        if self.layer is not None and self.layer.quarter_sample:
            self.standard = "mpeg4_qpel"

    def restart(self) -> None:
        """See `ResidualSource`; nothing is remembered."""

    def observe(self, payload: bytes) -> None:
        """See `ResidualSource`; a picture's own packet has all that is needed."""

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """See `ResidualSource`."""
        if evidence.picture is None:
            raise UsageError("the motion source needs the decoded picture")
        kind, vectors = evidence.picture.type, evidence.vectors
        if self.codec == "mpeg4" and kind == "B":
            raise SourceError("no_signal", "mpeg4: the decoder exports no true motion vectors of B pictures")
        if evidence.picture.flushed and kind != "I" and vectors is None:
            raise SourceError("no_signal", f"{self.codec}: the decoder exports no motion vectors of the last picture")
        if self.codec != "h264" and vectors is not None and ((vectors[:, 2] == 16) & (vectors[:, 3] == 8)).any():
            raise SourceError("no_signal", f"{self.codec}: field prediction is not followed")
        frame = evidence.picture.frame
        try:
            depth = motion.bit_depth(frame)
        except UsageError as error:
            raise SourceError("no_signal", f"{self.codec}: {error}") from error
        past, future = (
            [Reference(samples=picture.samples, distance=abs(picture.rank - evidence.rank)) for picture in side]
            for side in (evidence.past[:PAST], evidence.future[:FUTURE])
        )
        measured = motion_residual(
            motion.views(frame),
            vectors,
            past,
            future,
            standard=self.standard,
            qp=evidence.qp if self.standard == "h264" else None,
            bit_depth=depth,
            rounding=self._rounding(evidence),
            out=self._room,
        )
        self._room = measured.samples
        coded = measured.coded[:, : -(-self.height // 8), : -(-self.width // 8)]
        return Reading(
            energy=measure_energy(self._crop(measured.samples), block=block, coded=coded) if energy else None,
            cells=innovation(self._crop(measured.planes)) if cells else None,
            field=self._cells(measured) if cells else None,
        )

    def _cells(self, measured: MotionResidual) -> MotionField:
        """The motion field of what is shown."""
        field, rows, cols = measured.field, -(-self.height // 4), -(-self.width // 4)
        return MotionField(reference=field.reference[:, :rows, :cols], displacement=field.displacement[:, :rows, :cols])

    def _rounding(self, evidence: Evidence) -> int:
        if self.codec == "mpeg4":
            return rounding_type(evidence.payload, self.layer) or 0
        if self.codec == "h263":
            return h263_rounding_type(evidence.payload) or 0
        return 0

    def _crop(self, planes: Residual) -> Residual:
        luma, cb, cr = planes
        if luma.shape == (self.height, self.width):
            return planes
        tall = -(-self.height * cb.shape[0] // luma.shape[0])
        wide = -(-self.width * cb.shape[1] // luma.shape[1])
        return (
            np.ascontiguousarray(luma[: self.height, : self.width]),
            np.ascontiguousarray(cb[:tall, :wide]),
            np.ascontiguousarray(cr[:tall, :wide]),
        )


def open_source(name: SourceName, video: Video, *, vectors: bool = False) -> ResidualSource:
    """Make a source for an opened video.

    Args:
        name: which one.
        video: the video.
        vectors: whether motion vectors are wanted of it, if it has any.
    """
    extradata = bytes(video.stream.codec_context.extradata or b"")
    if name == "bitstream":
        return BitstreamSource(width=video.width, height=video.height, extradata=extradata, vectors=vectors)
    if name == "motion":
        return MotionSource(width=video.width, height=video.height, codec=video.codec, extradata=extradata)
    from codecmeta.proxy import ProxySource

    return ProxySource(width=video.width, height=video.height)
