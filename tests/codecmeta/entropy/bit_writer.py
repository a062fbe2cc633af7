"""Writing syntax elements and NAL units (H.264 and H.265, 7.2, 7.3.1, 9.1)."""

from __future__ import annotations

from typing import Self


class BitWriter:
    """Collects syntax elements as a string of bits."""

    def __init__(self) -> None:
        self.bits = ""

    def u(self, value: int, count: int) -> Self:
        self.bits += format(value, f"0{count}b") if count else ""
        return self

    def ue(self, *values: int) -> Self:
        for value in values:
            code = format(value + 1, "b")
            self.bits += "0" * (len(code) - 1) + code
        return self

    def se(self, *values: int) -> Self:
        for value in values:
            self.ue(2 * value - 1 if value > 0 else -2 * value)
        return self

    def align_zero(self) -> Self:
        self.bits += "0" * (-len(self.bits) % 8)
        return self

    def nal(self, header: int, *, header_bytes: int = 1) -> bytes:
        """Return the NAL unit with start code, trailing bits and emulation prevention."""
        bits = self.bits + "1"
        bits += "0" * (-len(bits) % 8)
        rbsp = int(bits, 2).to_bytes(len(bits) // 8, "big")
        escaped = bytearray()
        zeros = 0
        for byte in rbsp:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = zeros + 1 if byte == 0 else 0
        return b"\0\0\0\1" + header.to_bytes(header_bytes, "big") + bytes(escaped)
