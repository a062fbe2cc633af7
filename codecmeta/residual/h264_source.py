"""Bitstream source of H.264: the residual that the encoder wrote for a picture, by entropy decoding its packet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from codecmeta.container.sample_form import SampleForm
from codecmeta.errors import BitstreamError
from codecmeta.h264.motion import FrameMotion, MotionArrays, MotionReader
from codecmeta.h264.reader import ResidualReader
from codecmeta.record.cell_moments import CellMoments
from codecmeta.residual.carried import carry
from codecmeta.residual.geometry import check_geometry
from codecmeta.residual.motion_field import motion_field, nearest_field
from codecmeta.residual.source import Context, Evidence, Reading, SourceName


@dataclass(kw_only=True)
class H264Source:
    """Residual that an H.264 encoder wrote, by entropy decoding.

    With `vectors` or `carries`, motion is followed as well: then all packets are passed in decode order, except those
    of pictures that are no references.

    Attributes:
        width, height: size of the pictures, luma samples.
        form: of their samples, None where it is unknown.
        extradata: the container's codec private data.
        vectors: return the motion vectors of pictures that are read.
        carries: return what pictures carry; then every reference picture is read, with its cells.
    """

    width: int
    height: int
    form: SampleForm | None
    extradata: bytes
    vectors: bool = False
    carries: bool = False
    name: SourceName = field(default="bitstream", init=False)
    context: Context = field(default="nothing", init=False)

    def __post_init__(self) -> None:
        self._follows = self.vectors or self.carries
        self.reader = ResidualReader(self.extradata, motion=self._follows, container_size=(self.width, self.height))
        self._motion = MotionReader(self.reader)
        self._followed: tuple[bytes, FrameMotion | None] = b"", None
        self._states: dict[int, CellMoments] = {}

    def restart(self) -> None:
        """Restart, see `ResidualSource`."""
        self._motion.restart()
        self._states.clear()

    def observe(self, payload: bytes) -> None:
        """Observe a packet, see `ResidualSource`; its errors are reported when its picture is read."""
        if self._follows:
            self._follow(payload)
        else:
            with suppress(BitstreamError):
                self.reader.observe(payload)

    def _follow(self, payload: bytes) -> FrameMotion | None:
        """Return the frame of a packet among its references, None if it is unknown."""
        if self._followed[0] is not payload:
            frame = None
            with suppress(BitstreamError):
                frame = self._motion.follow(payload)
            self._followed = payload, frame
        return self._followed[1]

    def _prepare(self, payload: bytes) -> FrameMotion | None:
        """Return the same frame, ready to be read."""
        frame = self._follow(payload) if self._follows else None
        if frame is not None:
            try:
                self._motion.prepare(frame)
            except BitstreamError:
                return None
        return frame

    def _derive(self, frame: FrameMotion | None) -> MotionArrays | None:
        """Derive the motion of the frame that was read last, None if it is unknown."""
        coded = self.reader.latest
        if frame is None or coded is None:
            return None
        try:
            return self._motion.derive(frame, coded)
        except BitstreamError:
            return None

    def _carry(self, frame: FrameMotion, arrays: MotionArrays, own: CellMoments) -> CellMoments:
        """Return what a frame carries, from the frames that its blocks are predicted from."""
        known = list(self._states)
        columns = 4 * frame.headers[0].parameters.sequence.width_mbs
        field = motion_field(arrays, known, columns=columns, width=self.width, height=self.height)
        state = carry([self._states[number] for number in known], field, own)
        self._states[frame.number] = state
        for number in self._states.keys() - self._motion.references:
            del self._states[number]
        return state

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read a picture, see `ResidualSource`."""
        frame = self._prepare(evidence.payload)
        measured = self.reader.measure(evidence.payload, block=block if energy else None, cells=cells)
        grid = block if energy else 4
        check_geometry(measured, grid, width=self.width, height=self.height, form=self.form)
        arrays = self._derive(frame)
        field = carried = None
        if measured.cells is not None:
            if evidence.picture is not None:
                past, future = len(evidence.past), len(evidence.future)
                field = nearest_field(evidence.vectors, width=self.width, height=self.height, past=past, future=future)
            elif self.carries and frame is not None and arrays is not None:
                carried = self._carry(frame, arrays, measured.cells)
        table = None
        if self.vectors and energy and arrays is not None and self.reader.latest is not None:
            table = self._motion.list_vectors(arrays, self.reader.latest)
        return Reading(
            energy=measured.energy, cells=measured.cells, field=field, carried=carried, maps=measured, vectors=table
        )
