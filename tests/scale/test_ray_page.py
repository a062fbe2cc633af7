"""The command of the page for Ray, on a cluster of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from codecmeta.batch.folder_status import read_status
from tests.docs.test_at_scale import block, place, run
from tests.scale.conftest import Bench, require

__all__ = ["place"]


@pytest.mark.parametrize("bench", ["ray, one node"], indirect=True, scope="module")
def test_ray(bench: Bench, place: Path) -> None:
    address = require("ray").get_runtime_context().gcs_address
    script = block("## Ray").replace("pip install 'codecmeta[ray]'\n", "").replace("=auto", f"={address}")
    assert f"RAY_ADDRESS={address}" in script
    # these videos are light, and the engine is not of this process
    (place / "bin" / "codecmeta").write_text((place / "bin" / "codecmeta").read_text().replace(" --jobs 0", ""))
    run(script, place)
    status = read_status(place / "meta")
    assert (status.done, status.missing, bench.name) == (6, 0, "ray, one node")
