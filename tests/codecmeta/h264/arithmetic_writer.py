"""Arithmetic encoder for streams that no encoder at hand can make (Rec. ITU-T H.264, 9.3.4)."""

from __future__ import annotations

from codecmeta.h264.tables import constants
from tests.codecmeta.entropy.arithmetic_encoder import ArithmeticEncoder
from tests.codecmeta.h264.bit_writer import BitWriter


class ArithmeticWriter(ArithmeticEncoder):
    """Appends the bins of slice data to a slice header.

    Args:
        header: the slice header; it is filled up with ones to a whole byte.
        init: key of the context initialisation, "I" or cabac_init_idc.
        qp: SliceQPY.
    """

    def __init__(self, header: BitWriter, *, init: str, qp: int) -> None:
        header.bits += "1" * (-len(header.bits) % 8)
        states = []
        for m, n in constants()["cabac_context_init"][init]:
            state = min(max(((m * qp) >> 4) + n, 1), 126)
            states.append([63 - state, 0] if state <= 63 else [state - 64, 1])
        ranges, after_lps = (constants()[name]["table"] for name in ("rangeTabLPS", "transIdxLPS"))
        super().__init__(header, states=states, ranges=ranges, after_lps=after_lps)
