"""Short-term reference picture sets (Rec. ITU-T H.265, 7.3.7, 7.4.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from codecmeta.entropy.bits import BitReader
from codecmeta.errors import BitstreamError


class ReferenceSet(NamedTuple):
    """Pictures before and after the current one: difference of picture order, and whether the current one uses it."""

    negative: tuple[tuple[int, bool], ...]
    positive: tuple[tuple[int, bool], ...]

    @property
    def pictures(self) -> tuple[tuple[int, bool], ...]:
        """All pictures; their number is NumDeltaPocs."""
        return self.negative + self.positive

    @property
    def used(self) -> int:
        """Number of pictures that the current picture may refer to."""
        return sum(used for _, used in self.pictures)


def read_reference_set(reader: BitReader, index: int, count: int, sets: Sequence[ReferenceSet]) -> ReferenceSet:
    """Parse st_ref_pic_set (7.3.7).

    Args:
        reader: at its first bit.
        index: stRpsIdx; `count` for the one of a slice header.
        count: num_short_term_ref_pic_sets.
        sets: the previous sets of the sequence parameter set.

    Raises:
        BitstreamError: a value is out of range, or the data end first.
    """
    if index and reader.flag():
        return _read_predicted(reader, index, count, sets)
    negative = reader.ue(16, "num_negative_pics")
    positive = reader.ue(16 - negative, "num_positive_pics")
    return ReferenceSet(_read_deltas(reader, negative, -1), _read_deltas(reader, positive, 1))


def _read_deltas(reader: BitReader, count: int, sign: int) -> tuple[tuple[int, bool], ...]:
    pictures = []
    delta = 0
    for _ in range(count):
        delta += sign * (1 + reader.ue(0x7FFF, "delta_poc_minus1"))
        pictures.append((delta, reader.flag()))
    return tuple(pictures)


def _read_predicted(reader: BitReader, index: int, count: int, sets: Sequence[ReferenceSet]) -> ReferenceSet:
    """Read a set that is predicted from another (7-61, 7-62)."""
    back = 1 + reader.ue(index - 1, "delta_idx_minus1") if index == count else 1
    reference = sets[index - back]
    negative_delta = reader.flag()
    shift = (1 + reader.ue(0x7FFF, "abs_delta_rps_minus1")) * (-1 if negative_delta else 1)
    # the set's own pictures, then the picture that the set belonged to
    moved = []
    for delta, _ in (*reference.pictures, (0, False)):
        used = reader.flag()
        kept = used or reader.flag()
        if kept:
            moved.append((delta + shift, used))
    # the differences of a set are distinct, nearest first
    negative = tuple(sorted((one for one in moved if one[0] < 0), reverse=True))
    positive = tuple(sorted(one for one in moved if one[0] > 0))
    if len(negative) + len(positive) > 16:
        raise BitstreamError("the reference picture set has more than 16 pictures")
    return ReferenceSet(negative, positive)
