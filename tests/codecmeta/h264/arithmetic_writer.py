"""Arithmetic encoder for streams that no encoder at hand can make (Rec. ITU-T H.264, 9.3.4)."""

from __future__ import annotations

from codecmeta.h264.tables import constants
from tests.codecmeta.h264.bit_writer import BitWriter


class ArithmeticWriter:
    """Appends the bins of slice data to a slice header.

    Args:
        header: the slice header; it is filled up with ones to a whole byte.
        init: key of the context initialisation, "I" or cabac_init_idc.
        qp: SliceQPY.
    """

    def __init__(self, header: BitWriter, *, init: str, qp: int) -> None:
        self.writer = header
        header.bits += "1" * (-len(header.bits) % 8)
        self._states = []
        for m, n in constants()["cabac_context_init"][init]:
            state = min(max(((m * qp) >> 4) + n, 1), 126)
            self._states.append([63 - state, 0] if state <= 63 else [state - 64, 1])
        self._low, self._range, self._outstanding, self._first = 0, 510, 0, True

    def bins(self, context: int, *values: int) -> None:
        """EncodeDecision (9.3.4.2) of bins that share a context."""
        for value in values:
            state = self._states[context]
            lps = constants()["rangeTabLPS"]["table"][state[0]][self._range >> 6 & 3]
            self._range -= lps
            if value != state[1]:
                self._low += self._range
                self._range = lps
                if state[0] == 0:
                    state[1] = 1 - state[1]
                state[0] = constants()["transIdxLPS"]["table"][state[0]]
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
