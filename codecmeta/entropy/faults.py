"""Faults of entropy-coded data: compiled code stores a number, a bitstream reader raises its message."""

from __future__ import annotations

NONE = 0
EXP_GOLOMB = 1
ARITHMETIC_START = 2

MESSAGES = {
    EXP_GOLOMB: "an Exp-Golomb code has too many leading zeros",
    ARITHMETIC_START: "the arithmetic decoder starts with the forbidden offset 510 or 511",
}
"""Message by fault number; those of a codec's own syntax are 16 and above."""
