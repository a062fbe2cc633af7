"""A short run of the H.264 fuzz harness with bounds checking."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mutated_packets_are_read_or_refused(pytestconfig: pytest.Config) -> None:
    checked = pytestconfig.cache.mkdir("numba-boundscheck")  # type: ignore[union-attr]
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(checked)}
    command = [sys.executable, "-m", "tests.fuzz.h264_residual", "--packets", "400", "--seed", "1"]
    result = subprocess.run(
        command, cwd=pytestconfig.rootpath, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    report = json.loads(result.stdout)
    assert report["boundscheck"]
    outcomes = report["outcomes"]
    assert outcomes["refused"] > 100
    assert outcomes["read"] > 3
    assert outcomes["refused"] + outcomes["read"] == 400
