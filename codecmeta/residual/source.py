"""Residual source interface: the input that a source reads for a picture, and its result.

`bitstream` reads the residual that the encoder wrote from the picture's own packet (H.264, HEVC). `motion` subtracts
the motion-compensated prediction from the decoded picture (decoders that export vectors). `proxy` encodes the picture
and its predecessor again and reads that bitstream (anything else).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from codecmeta.decoding import side_data
from codecmeta.decoding.decoder import Picture
from codecmeta.prediction.compensation import MotionField
from codecmeta.record.cell_moments import CellMoments
from codecmeta.record.energy import BlockEnergy
from codecmeta.record.picture_reading import PictureMaps
from codecmeta.residual.reference_store import Decoded

SourceName = Literal["bitstream", "motion", "proxy"]
Context = Literal["nothing", "references", "predecessor"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Input that a source may use for one picture.

    Attributes:
        payload: the picture's packet.
        picture: the decoded picture; None for sources whose context is `nothing`.
        rank: index of the picture in presentation order.
        past: reference pictures shown before it, nearest first; or only its predecessor.
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
        frame = None if self.picture is None or self.picture.repeats else self.picture.frame
        return None if frame is None else side_data.quantisers(frame, frame.width, frame.height)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Residual of one picture, reduced.

    Attributes:
        energy: block means for the `innovation` map; None if not requested.
        cells: moments on 4x4 cells for the `carried` map; None if not requested.
        field: where cells are predicted from among the pictures of the evidence; None if not requested.
        carried: the carried state, where the source itself follows references.
        maps: maps of its macroblocks, where the source reads them.
        vectors: int16 (n, 7) as `side_data.vectors` returns them, where the source knows them; empty where nothing is
            predicted from another picture.
    """

    energy: BlockEnergy | None = None
    cells: CellMoments | None = None
    field: MotionField | None = None
    carried: CellMoments | None = None
    maps: PictureMaps | None = None
    vectors: NDArray[np.int16] | None = None


class ResidualSource(Protocol):
    """Reader of the residuals of one video, picture by picture."""

    @property
    def name(self) -> SourceName:
        """Its name in options and in `info`."""
        ...

    @property
    def context(self) -> Context:
        """Decoded pictures that it needs besides the packet."""
        ...

    def restart(self) -> None:
        """Forget all earlier pictures: the next packet need not follow the last one."""
        ...

    def observe(self, payload: bytes) -> None:
        """Store what later pictures depend on in a packet; a picture that is read may have been observed."""
        ...

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read one picture.

        Args:
            evidence: the picture and the other pictures of its context.
            block: luma samples per block side of the energy.
            energy: whether the energy is requested.
            cells: whether moments on 4x4 cells and the motion field are requested.

        Raises:
            SourceError: this source cannot read the residual of this picture.
        """
        ...
