"""Context variables: initialisation, storage and synchronisation (Rec. ITU-T H.265, 9.3.1, 9.3.2)."""

from __future__ import annotations

import numpy as np

from codecmeta.hevc.tables import CONTEXTS, STORED
from codecmeta.simd.numba_compile import compiled


@compiled
def start_contexts(s, t):
    """Initialise the context variables and StatCoeff (9.3.2.2, 9.3.2.4)."""
    qp = min(max(s.slice_qp, 0), 51)
    for i in range(CONTEXTS):
        value = np.int64(t.context_init[s.init_type, i])
        slope, intercept = (value >> 4) * 5 - 45, ((value & 15) << 3) - 16
        p = min(max(((slope * qp) >> 4) + intercept, 1), 126)
        s.context[i] = t.engine[(p - 64) * 2 + 1 if p > 63 else (63 - p) * 2]
    for i in range(CONTEXTS, STORED):
        s.context[i] = 0


@compiled
def copy_contexts(source, target):
    """Store or synchronise the context variables and StatCoeff (9.3.2.5)."""
    for i in range(STORED):
        target[i] = source[i]
