"""Bitstream source of HEVC: the residual that the encoder wrote for a picture, by entropy decoding its packet."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from codecmeta.container.sample_form import SampleForm
from codecmeta.errors import BitstreamError
from codecmeta.hevc.reader import ResidualReader
from codecmeta.residual.geometry import check_geometry
from codecmeta.residual.source import Context, Evidence, Reading, SourceName


@dataclass(kw_only=True)
class HevcSource:
    """Residual that an HEVC encoder wrote. Motion is not followed.

    Attributes:
        width, height: size of the pictures, luma samples.
        form: of their samples, None where it is unknown.
        extradata: the container's codec private data.
    """

    width: int
    height: int
    form: SampleForm | None
    extradata: bytes
    name: SourceName = field(default="bitstream", init=False)
    context: Context = field(default="nothing", init=False)

    def __post_init__(self) -> None:
        self.reader = ResidualReader(self.extradata)

    def restart(self) -> None:
        """Restart, see `ResidualSource`; parameter sets stay, pictures do not depend on others."""

    def observe(self, payload: bytes) -> None:
        """Observe a packet, see `ResidualSource`; its errors are reported when its picture is read."""
        with suppress(BitstreamError):
            self.reader.observe(payload)

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read a picture, see `ResidualSource`."""
        measured = self.reader.measure(evidence.payload, block=block if energy else None, cells=cells)
        grid = block if energy else 4
        check_geometry(measured, grid, width=self.width, height=self.height, form=self.form)
        return Reading(energy=measured.energy, cells=measured.cells, maps=measured)
