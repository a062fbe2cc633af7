"""Every situation on every backbone: exact, or refused with the reason that is the true one."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from bench.situations import SITUATIONS, try_situation
from tests.compress.models.material import BACKBONES

REFUSED = {
    "chunk_inside": "ends inside a video",
    "foreign_features": "not encoded inside this `with` block",
    "compiled_whole": "attach to the model itself",
    "logits_merged": "merged into others",
    "static_cache": "static cache",
}
NEEDS = {"int8": "torchao", "offload": "accelerate", "peft": "peft"}
LONG = ("compiled_layers",)
"""Compiled on two backbones by tests/compress/models/test_compiled.py."""


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", [name for name in SITUATIONS if name not in LONG])
def test_situation(name: str, backbone: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    outcome = try_situation(name, backbone)
    if name in REFUSED:
        assert outcome.exact is None
        assert REFUSED[name] in outcome.reason
    else:
        assert outcome.exact, outcome.reason
