"""Constants of Rec. ITU-T H.265, read from tables.json and laid out for compiled code."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codecmeta.entropy.cabac_states import engine_words

DIAGONAL, HORIZONTAL, VERTICAL = 0, 1, 2
"""scanIdx (6.5.3 to 6.5.5)."""

_SCANS = ("diag", "horizontal", "vertical")


@lru_cache(maxsize=1)
def constants() -> dict[str, Any]:
    """Return the content of tables.json."""
    text = resources.files("codecmeta.hevc").joinpath("tables.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def _context_offsets() -> dict[str, int]:
    offsets, total = {}, 0
    for name, values in constants()["cabac_init_values"].items():
        offsets[name] = total
        total += len(values[0])
    return offsets


CONTEXTS = 173
"""Number of context variables; `STATISTICS` follows them."""

STATISTICS = CONTEXTS
"""Index of StatCoeff[0..3] (9.3.4.2.6 ff.), which is stored and initialised together with the context variables."""

STORED = STATISTICS + 4

_OFFSET = _context_offsets()
SAO_MERGE = _OFFSET["sao_merge_flag"]
SAO_TYPE = _OFFSET["sao_type_idx"]
SPLIT_CU = _OFFSET["split_cu_flag"]
TRANSQUANT_BYPASS = _OFFSET["cu_transquant_bypass_flag"]
CU_SKIP = _OFFSET["cu_skip_flag"]
PRED_MODE = _OFFSET["pred_mode_flag"]
PART_MODE = _OFFSET["part_mode"]
PREV_INTRA_LUMA = _OFFSET["prev_intra_luma_pred_flag"]
INTRA_CHROMA = _OFFSET["intra_chroma_pred_mode"]
ROOT_CBF = _OFFSET["rqt_root_cbf"]
MERGE_FLAG = _OFFSET["merge_flag"]
MERGE_IDX = _OFFSET["merge_idx"]
INTER_PRED_IDC = _OFFSET["inter_pred_idc"]
REF_IDX = _OFFSET["ref_idx"]
MVP_FLAG = _OFFSET["mvp_flag"]
MVD_GREATER0 = _OFFSET["abs_mvd_greater0_flag"]
MVD_GREATER1 = _OFFSET["abs_mvd_greater1_flag"]
SPLIT_TRANSFORM = _OFFSET["split_transform_flag"]
CBF_LUMA = _OFFSET["cbf_luma"]
CBF_CHROMA = _OFFSET["cbf_chroma"]
CU_QP_DELTA = _OFFSET["cu_qp_delta_abs"]
CHROMA_QP_FLAG = _OFFSET["cu_chroma_qp_offset_flag"]
CHROMA_QP_IDX = _OFFSET["cu_chroma_qp_offset_idx"]
TRANSFORM_SKIP = _OFFSET["transform_skip_flag"]
EXPLICIT_RDPCM = _OFFSET["explicit_rdpcm_flag"]
EXPLICIT_RDPCM_DIR = _OFFSET["explicit_rdpcm_dir_flag"]
RES_SCALE_ABS = _OFFSET["log2_res_scale_abs_plus1"]
RES_SCALE_SIGN = _OFFSET["res_scale_sign_flag"]
LAST_X = _OFFSET["last_sig_coeff_x_prefix"]
LAST_Y = _OFFSET["last_sig_coeff_y_prefix"]
CODED_SUB_BLOCK = _OFFSET["coded_sub_block_flag"]
SIGNIFICANT = _OFFSET["sig_coeff_flag"]
GREATER1 = _OFFSET["coeff_abs_level_greater1_flag"]
GREATER2 = _OFFSET["coeff_abs_level_greater2_flag"]
"""First context variable of each syntax element (Table 9-4)."""

SKIP_CONTEXT_SET = 36
"""First set of `significant` for transform_skip_context_enabled_flag: luma, then chroma."""

TABLES = np.dtype(
    [
        ("engine", "u8", (128,)),
        ("context_init", "u1", (3, CONTEXTS)),
        ("scan_x", "u1", (4, 3, 64)),
        ("scan_y", "u1", (4, 3, 64)),
        ("scan_place", "u1", (4, 3, 64)),
        ("significant", "u1", (38, 4, 16)),
        ("last_offset", "u1", (2, 6)),
        ("last_shift", "u1", (2, 6)),
        ("matrix", "i2", (5, 32, 32)),
        ("matrix_columns", "i2", (5, 32, 32)),
        ("matrix_pairs", "i2", (5, 16, 32, 2)),
        ("level_scale", "i4", (6,)),
        ("chroma_qp", "u1", (58,)),
        ("chroma_422", "u1", (35,)),
    ],
    align=True,
)
"""Record of all tables that compiled code reads.

`engine` is the result of `codecmeta.entropy.cabac_states.engine_words`. `context_init` has initValue by initType.
`scan_x`, `scan_y` are positions by log2 of the block size, scanIdx and index; `scan_place` is the index by raster
position.
`significant` has ctxInc of sig_coeff_flag by set, prevCsbf and index in the sub-block; a set is
`(scanIdx * 3 + min(log2 - 2, 2)) * 4 + 2 * (cIdx > 0) + (not the first sub-block)`, see `SKIP_CONTEXT_SET` for others.
`last_offset`, `last_shift` are those of 9.3.4.2.3 by cIdx > 0 and log2.
`matrix` has the DST, then transMatrix of 4, 8, 16 and 32 points, a basis function a row; `matrix_columns` has its
transpose, `matrix_pairs` its rows 2 k and 2 k + 1 interleaved.
`chroma_qp` is QpC by qPi of 4:2:0 (Table 8-10), `chroma_422` Table 8-3.
"""

DST = 0
"""Index of the 4x4 DST in `matrix`."""


def build_tables(source: dict[str, Any]) -> NDArray[np.void]:
    """Lay out the constants of `source` (the content of tables.json) as an array of one record of type `TABLES`."""
    result = np.zeros(1, TABLES)
    record = result[0]
    record["engine"] = engine_words(source["rangeTabLPS"], source["transIdxLPS"])
    for kind in range(3):
        values = [value for table in source["cabac_init_values"].values() for value in table[kind]]
        record["context_init"][kind] = values
    for number, name in enumerate(_SCANS):
        for log2, places in enumerate(source["scan"][name]):
            x, y = np.array(places).T
            record["scan_x"][log2, number, : x.size] = x
            record["scan_y"][log2, number, : x.size] = y
            record["scan_place"][log2, number, (y << log2) + x] = np.arange(x.size)
    record["significant"] = _significant_contexts(record, source)
    for log2 in range(2, 6):
        record["last_offset"][:, log2] = 3 * (log2 - 2) + ((log2 - 1) >> 2), 15
        record["last_shift"][:, log2] = (log2 + 1) >> 2, log2 - 2
    _fill_matrices(record, source)
    record["level_scale"] = source["levelScale"]
    table = source["chroma_qp_420"]["qPi_30_to_43"]
    record["chroma_qp"] = (*range(30), *table, *range(38, 52))
    record["chroma_422"] = source["intra_chroma_422_mode"]
    return result


@lru_cache(maxsize=1)
def tables() -> NDArray[np.void]:
    """Return the record that every reader shares."""
    return build_tables(constants())


def _significant_contexts(record: np.void, source: dict[str, Any]) -> NDArray[np.uint8]:
    """Return ctxInc of sig_coeff_flag (9.3.4.2.5)."""
    contexts = np.zeros((38, 4, 16), np.uint8)
    small = np.array([*source["ctxIdxMap_4x4"], 0])
    pattern = np.array(source["sigCtx_by_prevCsbf"]["table"])
    for scan in range(3):
        x, y = record["scan_x"][2, scan, :16].astype(int), record["scan_y"][2, scan, :16].astype(int)
        for size in range(3):
            for chroma in (0, 1):
                for later in (0, 1):
                    if size == 0:
                        base = np.tile(small[4 * y + x], (4, 1))
                    else:
                        base = pattern[:, y, x]
                        if chroma:
                            base = base + (9 if size == 1 else 12)
                        else:
                            base = base + 3 * later + ((9 if scan == 0 else 15) if size == 1 else 21)
                        if not later:
                            base[:, 0] = 0
                    contexts[(scan * 3 + size) * 4 + 2 * chroma + later] = base + 27 * chroma
    contexts[SKIP_CONTEXT_SET], contexts[SKIP_CONTEXT_SET + 1] = 42, 43
    return contexts


def _fill_matrices(record: np.void, source: dict[str, Any]) -> None:
    whole = np.array(source["transform_matrix_32"])
    for place, log2 in enumerate((2, 2, 3, 4, 5)):
        size = 1 << log2
        matrix = np.array(source["transform_dst_4"]) if place == DST else whole[:: 32 // size, :size]
        record["matrix"][place, :size, :size] = matrix
        record["matrix_columns"][place, :size, :size] = matrix.T
        record["matrix_pairs"][place, : size // 2, :size, 0] = matrix[0::2]
        record["matrix_pairs"][place, : size // 2, :size, 1] = matrix[1::2]
