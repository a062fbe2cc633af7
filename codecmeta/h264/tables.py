"""Constants of Rec. ITU-T H.264, read from tables.json and laid out for compiled code."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.cabac_states import engine_words

COEFF_TOKEN, TOTAL_ZEROS, CHROMA_DC_TOTAL_ZEROS, RUN_BEFORE = 0, 6, 22, 34
"""First code table of each kind in `vlc_base`; the tables of a kind follow its number in the standard."""

COEFF_TOKEN_BITS, TOTAL_ZEROS_BITS, RUN_BEFORE_BITS = 8, 6, 3
"""Bits looked up at once; longer codewords need a second look-up of 8 more."""

# First of significant_coeff_flag of the 4x4 blocks, and how many follow before as many of last_significant_coeff_flag.
_FLAGS_4X4 = ((105, 61), (277, 61), (484, 88), (776, 88))

COLOUR_CONTEXTS = 460
"""First context variable of Cb and Cr in 4:4:4 (Table 9-34)."""

CHROMA_DC_422 = 14
"""Replaces ctxBlockCat 3 where a chroma DC block has the eight coefficients of 4:2:2."""

# Table 9-34: first context of coded_block_flag, significant_coeff_flag and last_significant_coeff_flag (frame,
# field) and coeff_abs_level_minus1, with ctxBlockCatOffset (Table 9-40) added, by ctxBlockCat 0..13.
_CODED_BLOCK_FLAG = (85, 89, 93, 97, 101, 1012, 460, 464, 468, 1016, 472, 476, 480, 1020)
_SIGNIFICANT = (
    (105, 120, 134, 149, 152, 402, 484, 499, 513, 660, 528, 543, 557, 718),
    (277, 292, 306, 321, 324, 436, 776, 791, 805, 675, 820, 835, 849, 733),
)
_LAST = (
    (166, 181, 195, 210, 213, 417, 572, 587, 601, 690, 616, 631, 645, 748),
    (338, 353, 367, 382, 385, 451, 864, 879, 893, 699, 908, 923, 937, 757),
)
_ABSOLUTE_LEVEL = (227, 237, 247, 257, 266, 426, 952, 962, 972, 708, 982, 992, 1002, 766)

# Table 7-14, mb_type 4..21: lists used by the two partitions (1 = L0, 2 = L1, 3 = both), for each pair of types.
_B_PARTITIONS = ((1, 1), (2, 2), (1, 2), (2, 1), (1, 3), (2, 3), (3, 1), (3, 2), (3, 3))
# Table 7-18: lists and shape (0 = 8x8, 1 = 8x4, 2 = 4x8, 3 = 4x4) by sub_mb_type; direct uses no list.
_B_SUB = ((0, 3), (1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (1, 3), (2, 3), (3, 3))

# Table 8-15: QPC as a function of qPI.
_CHROMA_QP = (*range(30), 29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, 38, 38, 38, 39, 39, 39, 39)

_VLC_SIZE = 12288

TABLES = np.dtype(
    [
        ("engine", "u8", (128,)),
        ("context_init", "i1", (4, 1024, 2)),
        ("coded_block_flag", "u2", (15,)),
        ("map_context", "u2", (2, 15, 128)),
        ("level_base", "u2", (15,)),
        ("vlc", "i2", (_VLC_SIZE,)),
        ("vlc_base", "u8", (42,)),
        ("scan4", "u1", (2, 16)),
        ("scan8", "u1", (2, 64)),
        ("coded_block_pattern", "u1", (2, 2, 48)),
        ("chroma_qp", "u1", (52,)),
        ("b_partitions", "u1", (9, 2)),
        ("b_sub", "u1", (13, 2)),
    ],
    align=True,
)
"""Record of all tables that compiled code reads.

`engine` is the result of `codecmeta.entropy.cabac_states.engine_words`. `context_init` is ordered I, then
cabac_init_idc 0..2, and by the index of the context. `map_context` has the indices of the contexts of
significant_coeff_flag and last_significant_coeff_flag of each scan index in turn, by field and ctxBlockCat. An entry of
`vlc` is value * 32 + length, 0 for no codeword, or minus the index of a second table. `coded_block_pattern` is indexed
by (ChromaArrayType in 0 and 3, Inter, codeNum). Scans are (frame, field) and give raster positions.
"""


@lru_cache(maxsize=1)
def constants() -> dict[str, Any]:
    """Return the content of tables.json."""
    text = resources.files("codecmeta.h264").joinpath("tables.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def zigzag(size: int) -> NDArray[np.int64]:
    """Return the raster positions of a size x size block in zig-zag order (Figures 6-12 and 8-8)."""
    cells = [(x, y) for y in range(size) for x in range(size)]
    cells.sort(key=lambda c: (c[0] + c[1], c[1] if (c[0] + c[1]) & 1 else c[0]))
    return np.array([x + size * y for x, y in cells])


def build_tables(source: dict[str, Any]) -> NDArray[np.void]:
    """Lay out the constants of `source` (the content of tables.json) as an array of one record of type `TABLES`."""
    result = np.zeros(1, TABLES)
    record = result[0]
    record["engine"] = engine_words(source["rangeTabLPS"]["table"], source["transIdxLPS"]["table"])
    places = _context_places()
    record["context_init"][:, places] = [source["cabac_context_init"][key] for key in ("I", "0", "1", "2")]
    record["coded_block_flag"] = (*_CODED_BLOCK_FLAG, _CODED_BLOCK_FLAG[3])
    record["level_base"] = (*_ABSOLUTE_LEVEL, _ABSOLUTE_LEVEL[3])
    _fill_map_contexts(record["map_context"], places, source)
    _fill_codes(record["vlc"], record["vlc_base"], source)
    record["scan4"] = zigzag(4), source["field_scan"]["4x4"]
    record["scan8"] = zigzag(8), source["field_scan"]["8x8"]
    for grey, name in enumerate(("coded_block_pattern", "coded_block_pattern_no_chroma")):
        for inter, kind in enumerate(("intra", "inter")):
            record["coded_block_pattern"][grey, inter, : len(source[name][kind])] = source[name][kind]
    record["chroma_qp"] = _CHROMA_QP
    record["b_partitions"] = _B_PARTITIONS
    record["b_sub"] = _B_SUB
    return result


@lru_cache(maxsize=1)
def tables() -> NDArray[np.void]:
    """Return the record that every reader shares."""
    return build_tables(constants())


def _context_places() -> NDArray[np.int64]:
    """Return where each context is stored: at its ctxIdx, but both flags of each coefficient of 4x4 blocks together."""
    places = np.arange(1024)
    for first, count in _FLAGS_4X4:
        places[first : first + count] = first + 2 * np.arange(count)
        places[first + count : first + 2 * count] = first + 1 + 2 * np.arange(count)
    return places


def _fill_map_contexts(contexts: NDArray[np.uint16], places: NDArray[np.int64], source: dict[str, Any]) -> None:
    """Fill the contexts of the significance map: their first, and ctxIdxInc by coefficient index (9.3.3.1.3)."""
    plain = np.minimum(np.arange(64), 15)
    for field, structure in enumerate(("frame", "field")):
        for category in range(15):
            block = 3 if category == CHROMA_DC_422 else category
            significant = last = plain
            if category in (5, 9, 13):
                significant = np.array(source["sig_coeff_ctxIdxInc_8x8"][structure])
                last = np.array(source["last_coeff_ctxIdxInc_8x8"]["both"])
            elif block == 3:
                significant = last = np.minimum(plain // (1 if category == 3 else 2), 2)
            elif block in (1, 4, 7, 11):
                # AC blocks: the first coefficient has scan index 1
                significant = last = np.maximum(plain - 1, 0)
            contexts[field, category, 0 : 2 * significant.size : 2] = places[_SIGNIFICANT[field][block] + significant]
            contexts[field, category, 1 : 2 * last.size : 2] = places[_LAST[field][block] + last]


def _fill_codes(vlc: NDArray[np.int16], base: NDArray[np.uint64], source: dict[str, Any]) -> None:
    groups = (
        (COEFF_TOKEN, COEFF_TOKEN_BITS, [v for k, v in source["coeff_token"].items() if k != "doc"]),
        (TOTAL_ZEROS + 1, TOTAL_ZEROS_BITS, list(source["total_zeros"]["4x4"].values())),
        (CHROMA_DC_TOTAL_ZEROS + 1, TOTAL_ZEROS_BITS, list(source["total_zeros"]["chroma_dc_420"].values())),
        (CHROMA_DC_TOTAL_ZEROS + 5, TOTAL_ZEROS_BITS, list(source["total_zeros"]["chroma_dc_422"].values())),
        (RUN_BEFORE + 1, RUN_BEFORE_BITS, [v for k, v in source["run_before"].items() if k != "doc"]),
    )
    used = 1
    for first, bits, codes in groups:
        for number, table in enumerate(codes, first):
            base[number] = used
            used = _fill_code(vlc, used, bits, {_code_value(key): word for key, word in table.items()})


def _code_value(key: str) -> int:
    """Convert a table's key to the number in compiled code: "TrailingOnes,TotalCoeff" becomes ones + 4 * total."""
    ones, _, total = key.rpartition(",")
    return int(total) * 4 + int(ones) if ones else int(total)


def _fill_code(vlc: NDArray[np.int16], base: int, bits: int, codes: dict[int, str]) -> int:
    used = base + (1 << bits)
    for value, word in codes.items():
        place, width, tail = base, bits, word
        if len(word) > bits:
            link = base + int(word[:bits], 2)
            if vlc[link] == 0:
                vlc[link] = -used
                used += 256
            place, width, tail = -int(vlc[link]), 8, word[bits:]
        start = place + (int(tail, 2) << (width - len(tail)))
        vlc[start : start + (1 << (width - len(tail)))] = value * 32 + len(word)
    return used
