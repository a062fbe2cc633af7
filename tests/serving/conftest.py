"""Checkpoints and videos of the serving tests; they need vLLM, which `scripts/test-serving` installs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import codecmeta
from tests.serving.engine import Question

DATA = Path(__file__).resolve().parents[2] / "data"
CLIPS = {"digits": ("sprites/sprites_07.mp4", 8, 64), "others": ("sprites/sprites_73.mp4", 6, 48)}
"""Clip -> file, frames and their short side."""

if importlib.util.find_spec("vllm") is None and os.environ.get("CODECMETA_SERVING"):
    raise RuntimeError("vLLM is not installed; scripts/test-serving needs it")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Write checkpoints of tiny models when they are first asked for."""
    from tests.serving.checkpoints import write_checkpoint

    folder, written = tmp_path_factory.mktemp("checkpoints"), set[str]()

    def find(name: str) -> str:
        if name not in written:
            write_checkpoint(name, folder / name)
            written.add(name)
        return str(folder / name)

    return find


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write records of real clips, with frames; ``resized`` is ``digits`` with other packet sizes."""
    folder = tmp_path_factory.mktemp("records")
    found = {}
    for name, (file, frames, pixels) in CLIPS.items():
        meta = codecmeta.extract(DATA / file, frames=f"uniform:{frames}", pixels=pixels, residual="none")
        found[name] = str(folder / f"{name}.npz")
        meta.save(found[name])
        if name == "digits":
            size = meta.packet_size.copy()
            size[meta.frame_packet[2] :] *= 40
            found["resized"] = str(folder / "resized.npz")
            replace(meta, packet_size=size).save(found["resized"])
    return found


@pytest.fixture(scope="session")
def question(records: dict[str, str]) -> Question:
    """Return a question about one clip."""
    return Question(records=(records["digits"],))
