"""Slice state shared by the bitstream readers of both standards: the bits, and the arithmetic decoding engine."""

from __future__ import annotations

READING = (
    ("fault", "i8"),
    ("data", "i8"),
    ("end", "i8"),
    ("stop", "i8"),
    ("bit", "i8"),
    ("range", "u8"),
    ("offset", "u8"),
    ("ahead", "i8"),
    ("byte", "i8"),
)
"""Fields of a structured dtype, first in the slice record of either standard.

fault: reason why reading stopped, 0 before (faults.py).  data, end: address and size in bytes of the RBSP
(slice_bits.py). stop: position of its stop bit.  bit: current position.  range, offset: codIRange, and codIOffset with
`ahead` more bits (cabac.py).  byte: the next one that the engine reads.
"""
