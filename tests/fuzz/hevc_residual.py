"""Mutated HEVC packets: every one must be read or refused with BitstreamError, within a second.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.fuzz.hevc_residual --packets 20000

Run it from the root. With NUMBA_BOUNDSCHECK=1, an index outside a table or buffer raises IndexError and counts as a
failure; the cache directory keeps the checked machine code apart from the usual one.
"""

from __future__ import annotations

import sys

from tests.fuzz.mutation import main

if __name__ == "__main__":
    sys.exit(main("hevc", "mutated HEVC packets"))
