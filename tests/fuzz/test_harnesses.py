"""Short runs of the fuzz harnesses with bounds checking."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest


def fuzz(config: pytest.Config, harness: str, *, packets: int) -> dict[str, Any]:
    """Return what a harness reports for the given number of packets."""
    checked = config.cache.mkdir("numba-boundscheck")
    environment = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(checked)}
    command = [sys.executable, "-m", f"tests.fuzz.{harness}", "--packets", str(packets), "--seed", "1"]
    result = subprocess.run(command, cwd=config.rootpath, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["boundscheck"]
    return report


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("harness", ["h264_residual", "hevc_residual"])
def test_mutated_packets_are_read_or_refused(pytestconfig: pytest.Config, harness: str) -> None:
    outcomes = fuzz(pytestconfig, harness, packets=400)["outcomes"]
    assert outcomes["refused"] > 100
    assert outcomes["read"] > 3
    assert outcomes["refused"] + outcomes["read"] == 400


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_motion_around_mutated_packets_is_read_or_refused(pytestconfig: pytest.Config) -> None:
    outcomes = fuzz(pytestconfig, "h264_motion", packets=60)["outcomes"]
    assert outcomes["refused"] > 40
    assert outcomes["read"] > 300
