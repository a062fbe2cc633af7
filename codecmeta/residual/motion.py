"""Motion source: the decoded picture minus its motion-compensated prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from codecmeta.container.mpeg4_headers import video_object_layer
from codecmeta.container.video import Video
from codecmeta.decoding import side_data
from codecmeta.errors import BitstreamError, SourceError, UsageError
from codecmeta.h264 import nal
from codecmeta.h264.parameter_sets import read_sequence_parameters
from codecmeta.prediction.compensation import MotionField, MotionResidual, Reference, motion_residual
from codecmeta.prediction.reference_selection import FUTURE, PAST
from codecmeta.prediction.rounding_control import h263_rounding_type, rounding_type
from codecmeta.prediction.standards import STANDARDS
from codecmeta.record.cell_moments import measure_cells
from codecmeta.record.energy import Residual, measure_energy
from codecmeta.residual.source import Context, Evidence, Reading, SourceName


def cuts_left_or_top(video: Video) -> bool:
    """Return whether an H.264 stream's pictures begin after the first coded sample, left or top."""
    if video.codec != "h264":
        return False
    try:
        _, units = nal.read_extradata(bytes(video.stream.codec_context.extradata or b""))
        crops = [read_sequence_parameters(unit.rbsp()).crop for unit in units if unit.kind == nal.SPS]
    except BitstreamError:
        return True
    return any(left or top for left, _, top, _ in crops)


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
        """Restart, see `ResidualSource`; nothing is stored."""

    def observe(self, payload: bytes) -> None:
        """Observe a packet, see `ResidualSource`; a picture's own packet has all that is needed."""

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read a picture, see `ResidualSource`."""
        if evidence.picture is None:
            raise UsageError("the motion source needs the decoded picture")
        kind, vectors = evidence.picture.type, evidence.vectors
        if self.codec == "mpeg4" and kind == "B":
            raise SourceError("no_signal", "mpeg4: the decoder exports no true motion vectors of B pictures")
        if evidence.picture.flushed and kind != "I" and vectors is None:
            raise SourceError("no_signal", f"{self.codec}: the decoder exports no motion vectors of the last picture")
        if self.codec != "h264" and vectors is not None and ((vectors[:, 2] == 16) & (vectors[:, 3] == 8)).any():
            raise SourceError("no_signal", f"{self.codec}: field prediction is not supported")
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
            cells=measure_cells(self._crop(measured.planes)) if cells else None,
            field=self._cells(measured) if cells else None,
        )

    def _cells(self, measured: MotionResidual) -> MotionField:
        """Return the motion field of the displayed part."""
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
