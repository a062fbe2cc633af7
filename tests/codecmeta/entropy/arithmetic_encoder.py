"""Arithmetic encoder, the same in H.264 (9.3.4) and H.265 (9.3.5)."""

from __future__ import annotations

from collections.abc import Sequence

from tests.codecmeta.entropy.bit_writer import BitWriter


class ArithmeticEncoder:
    """Appends bins to a writer of bits.

    Args:
        writer: what the bins are appended to; it stands at a whole byte.
        states: [pStateIdx, valMPS] of each context.
        ranges: rangeTabLPS.
        after_lps: transIdxLps.
    """

    def __init__(
        self, writer: BitWriter, *, states: list[list[int]], ranges: Sequence[Sequence[int]], after_lps: Sequence[int]
    ) -> None:
        self.writer = writer
        self.states = states
        self._ranges, self._after_lps = ranges, after_lps
        self.start()

    def start(self) -> None:
        """Initialise the engine at the writer's position; the contexts stay as they are."""
        self._low, self._range, self._outstanding, self._first = 0, 510, 0, True
        self._start = len(self.writer.bits)

    @property
    def position(self) -> int:
        """Bits that a decoder has read by now (9.3.1.2): nine at the start, and one for each shift of its range."""
        shifts = len(self.writer.bits) - self._start + self._outstanding + (not self._first)
        return self._start + 9 + shifts

    def bins(self, context: int, *values: int) -> None:
        """EncodeDecision (9.3.4.2) of bins that share a context."""
        for value in values:
            state = self.states[context]
            lps = self._ranges[state[0]][self._range >> 6 & 3]
            self._range -= lps
            if value != state[1]:
                self._low += self._range
                self._range = lps
                if state[0] == 0:
                    state[1] = 1 - state[1]
                state[0] = self._after_lps[state[0]]
            else:
                state[0] = min(state[0] + 1, 62)
            self._renormalise()

    def bypass(self, value: int) -> None:
        """EncodeBypass (9.3.4.4)."""
        self._low = 2 * self._low + value * self._range
        if self._low >= 1024:
            self._put(1)
            self._low -= 1024
        elif self._low < 512:
            self._put(0)
        else:
            self._low -= 512
            self._outstanding += 1

    def terminate(self, value: int) -> None:
        """EncodeDecision before termination (9.3.4.5); after a 1 the slice ends with its trailing bits."""
        self._range -= 2
        if value:
            self._low += self._range
            self._range = 2
            self._renormalise()
            self._put(self._low >> 9 & 1)
            # the last bit written, a 1, is rbsp_stop_one_bit, which the NAL unit appends
            self.writer.u(self._low >> 8 & 1, 1)
        else:
            self._renormalise()

    def _renormalise(self) -> None:
        while self._range < 256:
            if self._low < 256:
                self._put(0)
            elif self._low >= 512:
                self._low -= 512
                self._put(1)
            else:
                self._low -= 256
                self._outstanding += 1
            self._range *= 2
            self._low *= 2

    def _put(self, bit: int) -> None:
        if self._first:
            self._first = False
        else:
            self.writer.u(bit, 1)
        self.writer.bits += str(1 - bit) * self._outstanding
        self._outstanding = 0
