"""Parameter sets of a stream by number, each parsed when a slice first needs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from codecmeta.errors import BitstreamError

Sequence = TypeVar("Sequence")
Picture = TypeVar("Picture")


class ParameterSets(Generic[Sequence, Picture]):
    """Sequence and picture parameter sets.

    A corrupt set still replaces its predecessor: what it meant to change is unknown, so slices that refer to it are
    refused until it is sent again. All other sets remain in force.

    Args:
        sequence_number, picture_number: return the number of a set from its RBSP, or raise BitstreamError.
        read_sequence: parses a sequence parameter set.
        read_picture: parses a picture parameter set, given a function that finds a sequence parameter set by number.
    """

    def __init__(
        self,
        *,
        sequence_number: Callable[[bytes], int],
        picture_number: Callable[[bytes], int],
        read_sequence: Callable[[bytes], Sequence],
        read_picture: Callable[[bytes, Callable[[int], Sequence]], Picture],
    ) -> None:
        self._sequence_number, self._picture_number = sequence_number, picture_number
        self._read_sequence, self._read_picture = read_sequence, read_picture
        self._raw_sequences: dict[int, bytes] = {}
        self._raw_pictures: dict[int, bytes] = {}
        self._sequences: dict[int, Sequence] = {}
        self._pictures: dict[int, Picture] = {}

    def store_sequence(self, rbsp: bytes) -> None:
        """Store a sequence parameter set RBSP."""
        for number in _numbers(self._sequence_number, rbsp, self._raw_sequences):
            if self._raw_sequences.get(number) != rbsp:
                self._raw_sequences[number] = rbsp
                self._sequences.pop(number, None)
                self._pictures.clear()

    def store_picture(self, rbsp: bytes) -> None:
        """Store a picture parameter set RBSP."""
        for number in _numbers(self._picture_number, rbsp, self._raw_pictures):
            if self._raw_pictures.get(number) != rbsp:
                self._raw_pictures[number] = rbsp
                self._pictures.pop(number, None)

    def sequence(self, number: int) -> Sequence:
        """Return the sequence parameter set that a picture parameter set refers to.

        Raises:
            BitstreamError: it has not been seen, is corrupt, or describes a picture beyond the limits.
        """
        if number not in self._sequences:
            if number not in self._raw_sequences:
                raise BitstreamError(f"a picture refers to sequence parameter set {number}, which has not been seen")
            self._sequences[number] = self._read_sequence(self._raw_sequences[number])
        return self._sequences[number]

    def picture(self, number: int) -> Picture:
        """Return the picture parameter set that a slice header refers to.

        Raises:
            BitstreamError: it, or its sequence parameter set, has not been seen or is corrupt.
        """
        if number not in self._pictures:
            if number not in self._raw_pictures:
                raise BitstreamError(f"a slice refers to picture parameter set {number}, which has not been seen")
            self._pictures[number] = self._read_picture(self._raw_pictures[number], self.sequence)
        return self._pictures[number]


def _numbers(number_of: Callable[[bytes], int], rbsp: bytes, known: Iterable[int]) -> list[int]:
    """Return the number of a set; where it cannot be read, all known numbers, since any may be meant."""
    try:
        return [number_of(rbsp)]
    except BitstreamError:
        return list(known)
