"""Where a picture's residual comes from: one interface, several sources, best first.

`bitstream` reads the residual that the encoder wrote from the picture's own packet (H.264). `motion` subtracts the
motion-compensated prediction from the decoded picture (decoders that export vectors). `proxy` encodes the picture
and its predecessor again and reads that bitstream (anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta.container.video import Video
from codecmeta.decoding import side_data
from codecmeta.decoding.decoder import Picture
from codecmeta.errors import BitstreamError, SourceError, UsageError
from codecmeta.h264 import nal
from codecmeta.h264.parameter_sets import read_sequence_parameters
from codecmeta.prediction.block_prediction import Standard
from codecmeta.prediction.compensation import MotionField, MotionResidual, Reference, motion_residual
from codecmeta.prediction.intra import Residual
from codecmeta.prediction.reference_selection import FUTURE, PAST
from codecmeta.prediction.rounding_control import h263_rounding_type, rounding_type, video_object_layer
from codecmeta.record.energy import BlockEnergy, measure_energy
from codecmeta.record.options import ResidualChoice
from codecmeta.residual.carried import CarriedState, innovation
from codecmeta.residual.reference_store import Decoded

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
        return None if frame is None else side_data.quantisers(frame, frame.width, frame.height)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The residual of one picture, reduced.

    Attributes:
        energy: block means for the `innovation` map; None if not asked for.
        cells: moments on 4x4 cells for the `carried` map; None if not asked for.
        field: where cells are predicted from among the pictures of the evidence; None if not asked for.
        carried: what the picture carries, where the source follows references by itself.
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
    carried: CarriedState | None = None
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


def is_reference(video: Video, payload: bytes, kind: str) -> bool:
    """Whether later pictures may refer to the one of a packet, which is of type I, P or B."""
    if video.codec != "h264":
        return kind != "B"
    extradata = bytes(video.stream.codec_context.extradata or b"")
    length_size = (extradata[4] & 3) + 1 if len(extradata) > 4 and extradata[0] == 1 else 0
    try:
        units = nal.split(payload, length_size)
        return next((unit.ref_idc > 0 for unit in units if nal.SLICE <= unit.kind <= nal.IDR_SLICE), True)
    except BitstreamError:
        return True


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
            depth = side_data.bit_depth(frame)
        except UsageError as error:
            raise SourceError("no_signal", f"{self.codec}: {error}") from error
        past, future = (
            [Reference(samples=picture.samples, distance=abs(picture.rank - evidence.rank)) for picture in side]
            for side in (evidence.past[:PAST], evidence.future[:FUTURE])
        )
        measured = motion_residual(
            side_data.views(frame),
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


def open_source(name: SourceName, video: Video, *, vectors: bool = False, carries: bool = False) -> ResidualSource:
    """Make a source for an opened video.

    Args:
        name: which one.
        video: the video.
        vectors: whether motion vectors are wanted of it, if it has any.
        carries: whether it is to follow what pictures carry, if it can.
    """
    extradata = bytes(video.stream.codec_context.extradata or b"")
    if name == "bitstream":
        from codecmeta.residual.bitstream import BitstreamSource

        return BitstreamSource(
            width=video.width, height=video.height, extradata=extradata, vectors=vectors, carries=carries
        )
    if name == "motion":
        return MotionSource(width=video.width, height=video.height, codec=video.codec, extradata=extradata)
    from codecmeta.residual.proxy import ProxySource

    return ProxySource(width=video.width, height=video.height)
