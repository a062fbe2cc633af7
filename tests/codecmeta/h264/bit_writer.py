"""Writing H.264 syntax, for streams that no encoder at hand can make (Rec. ITU-T H.264, 7.2, 9.1, 9.2)."""

from __future__ import annotations

from codecmeta.h264.tables import constants
from tests.codecmeta.entropy import bit_writer as entropy


class BitWriter(entropy.BitWriter):
    """The same, with residual blocks in variable-length code."""

    def block(self, levels: list[int], context: int) -> int:
        """residual_block_cavlc of `levels` in scan order, given nC; returns TotalCoeff (9.2)."""
        coded = [(index, level) for index, level in enumerate(levels) if level]
        total = len(coded)
        ones = 0
        for _, level in reversed(coded):
            if abs(level) != 1 or ones == 3:
                break
            ones += 1
        tables = [value for key, value in constants()["coeff_token"].items() if key != "doc"]
        table = tables[0 if context < 2 else 1 if context < 4 else 2 if context < 8 else 3]
        self.bits += table[f"{ones},{total}"]
        if total == 0:
            return 0
        self._levels([level for _, level in reversed(coded)], total, ones)
        zeros = coded[-1][0] + 1 - total
        if total < len(levels):
            self.bits += constants()["total_zeros"]["4x4"][str(total)][str(zeros)]
        places = [index for index, _ in coded]
        for higher, lower in zip(places[:0:-1], places[-2::-1], strict=True):
            if zeros:
                run = higher - lower - 1
                self.bits += constants()["run_before"][str(min(zeros, 7))][str(run)]
                zeros -= run
        return total

    def _levels(self, levels: list[int], total: int, ones: int) -> None:
        for level in levels[:ones]:
            self.bits += "1" if level < 0 else "0"
        suffix = 1 if total > 10 and ones < 3 else 0
        for number, level in enumerate(levels[ones:]):
            code = 2 * level - 2 if level > 0 else -2 * level - 1
            if number == 0 and ones < 3:
                code -= 2
            if code >> suffix < 14 or (suffix and code >> suffix < 15):
                self.bits += "0" * (code >> suffix) + "1"
                self.u(code & ((1 << suffix) - 1), suffix)
            else:
                # the escape of 12 bits is enough for small levels
                self.bits += "0" * 15 + "1"
                self.u(code - (15 << suffix) - (15 if suffix == 0 else 0), 12)
            suffix = max(suffix, 1)
            if abs(level) > 3 << (suffix - 1) and suffix < 6:
                suffix += 1
