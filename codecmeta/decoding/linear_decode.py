"""Linear decode of a whole video: number of its pictures, and which of it is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codecmeta.container.packets import PacketTable, read_packets
from codecmeta.container.video import Video, open_video
from codecmeta.decoding.decoder import Decoder, Picture, Run


@dataclass(frozen=True, kw_only=True)
class LinearDecode:
    """Result of decoding every packet of a video.

    Attributes:
        packets: number of packets of the stream.
        pictures: number of pictures that the decoder gave, including those that show another one again.
        errors: number of packets that the decoder refused.
        corrupt: number of pictures that it marked as corrupt.
        missing: number of packets from the first key packet on whose shown picture the decoder did not give.
    """

    packets: int
    pictures: int
    errors: int
    corrupt: int
    missing: int

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.errors or self.corrupt or self.missing)


def decode_linearly(source: str | os.PathLike[str]) -> LinearDecode:
    """Decode a whole video from its first key packet, as a player does.

    Args:
        source: the file.

    Raises:
        SourceError: the file cannot be opened or demuxed, or its pictures change their size.
    """
    with open_video(source) as video:
        return decode_video(video, read_packets(video))


def decode_video(video: Video, packets: PacketTable, *, look: Callable[[Picture], None] | None = None) -> LinearDecode:
    """Decode an opened video like `decode_linearly`; pass every picture to `look`."""
    decoder = Decoder(video, packets)
    count = packets.size.size
    first = int(np.flatnonzero(packets.key)[0])
    given = np.zeros(count, np.bool_)
    pictures = 0
    for picture in decoder.decode(Run(start=first, stop=count, targets=()), every=True):
        given[picture.packet] = True
        pictures += 1
        if look is not None:
            look(picture)
    expected = packets.shown.copy()
    # pictures led by the first key picture but shown before it refer to pictures that are not in the file
    expected[:first] = False
    expected &= packets.pts >= packets.pts[first]
    return LinearDecode(
        packets=count,
        pictures=pictures,
        errors=decoder.errors,
        corrupt=decoder.corrupt,
        missing=int(np.count_nonzero(expected & ~given)),
    )
