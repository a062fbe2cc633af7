"""Proxy source: encodes the picture after its predecessor with H.264, and reads that bitstream.

For codecs whose bitstream is not read (VP9, AV1) the residual of the stream itself is not available. The closest
substitute is what an H.264 encoder at ordinary web settings leaves after predicting the picture from the previous one;
it is the same for every source.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import av
import numpy as np
from av.video.frame import PictureType
from numpy.typing import NDArray
from scipy import sparse

from codecmeta.decoding.rgb import convert, scaled_size
from codecmeta.errors import UsageError
from codecmeta.h264.reader import ResidualReader
from codecmeta.record.density import overlap_shares
from codecmeta.record.energy import BlockEnergy
from codecmeta.residual.source import Context, Evidence, Reading, SourceName

SHORT_SIDE = 384
"""Size at which the picture is encoded, that of a vision encoder's input."""

SETTINGS = {
    "preset": "veryfast",
    "tune": "zerolatency",
    "crf": "23",
    "x264-params": "keyint=infinite:scenecut=0:bframes=0:ref=1:weightp=0:threads=1:sliced-threads=0",
}
_CELL: Literal[4] = 4


@dataclass(kw_only=True)
class ProxySource:
    """Residual of a re-encoding of the decoded pictures, mapped onto the blocks of the source."""

    width: int
    height: int
    name: SourceName = field(default="proxy", init=False)
    context: Context = field(default="predecessor", init=False)

    def __post_init__(self) -> None:
        wide, tall = scaled_size(self.width, self.height, short_side=SHORT_SIDE)
        # 4:2:0 needs even sides, and x264 at least one macroblock
        self.coded = max(wide // 2 * 2, 16), max(tall // 2 * 2, 16)
        self.reader: ResidualReader | None = None
        self.extradata = b""

    def _open(self) -> None:
        """Start a new encoder: rate control of a used one depends on earlier pictures."""
        self.encoder = av.CodecContext.create("libx264", "w")
        self.encoder.width, self.encoder.height = self.coded
        self.encoder.pix_fmt = "yuv420p"
        self.encoder.time_base = Fraction(1, 25)
        self.encoder.framerate = Fraction(25)
        self.encoder.thread_count = 1
        self.encoder.options = SETTINGS
        self.sent = 0

    def restart(self) -> None:
        """Restart, see `ResidualSource`; a picture depends only on its predecessor."""

    def observe(self, payload: bytes) -> None:
        """Observe a packet, see `ResidualSource`; the source's own packets are not read."""

    def read(self, evidence: Evidence, *, block: Literal[4, 8], energy: bool, cells: bool) -> Reading:
        """Read a picture, see `ResidualSource`. A first picture has no predecessor and is read as an intra picture."""
        if evidence.picture is None:
            raise UsageError("the proxy source needs the decoded picture")
        before = evidence.past[0].picture.frame if evidence.past else None
        return Reading(energy=self.encode(evidence.picture.frame, before, block=block)[0])

    def encode(
        self, frame: av.VideoFrame, before: av.VideoFrame | None, *, block: Literal[4, 8]
    ) -> tuple[BlockEnergy, list[int]]:
        """Encode a picture after its predecessor, or as an intra picture without one.

        Args:
            frame: the picture.
            before: its predecessor.
            block: luma samples of the source per block side.

        Returns:
            The residual of the picture, and bytes of the packets of both, in order.
        """
        self._open()
        packets = [] if before is None else [self._encode(before, intra=True)]
        packets.append(self._encode(frame, intra=before is None))
        assert self.reader is not None  # made with the first packet
        fine = self.reader.measure(packets[-1], block=_CELL).energy
        assert fine is not None  # its block is given
        down = _shares(self.height, block, self.coded[1])
        across = _shares(self.width, block, self.coded[0])
        planes = np.concatenate((fine.energy[np.newaxis], fine.power, fine.mean))
        energy, power, mean = np.split(_resample(planes, down, across), [1, 1 + len(fine.power)])
        mapped = BlockEnergy(energy=energy[0], power=power, mean=mean, range=fine.range)
        return mapped, [len(packet) for packet in packets]

    def _encode(self, frame: av.VideoFrame, *, intra: bool) -> bytes:
        image = convert(frame, width=self.coded[0], height=self.coded[1], pixel_format="yuv420p")
        image.pts = self.sent
        image.time_base = self.encoder.time_base
        image.pict_type = PictureType.I if intra else PictureType.P
        self.sent += 1
        packet = b"".join(bytes(part) for part in self.encoder.encode(image))
        if self.sent == 1:
            extradata = bytes(self.encoder.extradata or b"")
            # every encoder writes the same parameter sets, unless the encoder is another
            if self.reader is None or extradata != self.extradata:
                self.reader, self.extradata = ResidualReader(extradata), extradata
        assert self.reader is not None
        self.reader.observe(packet)
        return packet


@lru_cache(maxsize=16)
def _shares(size: int, block: int, coded: int) -> sparse.csr_array:
    """Return the share of each cell of the encoded picture in each block of the source: two or three of a block."""
    blocks = np.minimum(np.arange(-(-size // block) + 1) * block, size) * (coded / size)
    cells = np.minimum(np.arange(-(-coded // _CELL) + 1) * _CELL, coded).astype(np.float64)
    return sparse.csr_array(overlap_shares(blocks, cells))


def _resample(planes: NDArray[np.float32], down: sparse.csr_array, across: sparse.csr_array) -> NDArray[np.float32]:
    """Average (C, rows, columns) cells over blocks."""
    count, rows, columns = planes.shape
    # both products along the first axis of all planes at once
    tall = down @ planes.astype(np.float64).transpose(1, 0, 2).reshape(rows, count * columns)
    wide = across @ tall.reshape(-1, count, columns).transpose(2, 1, 0).reshape(columns, -1)
    averaged: NDArray[np.float32] = wide.reshape(-1, count, down.shape[0]).transpose(1, 2, 0).astype(np.float32)
    return np.ascontiguousarray(averaged)
