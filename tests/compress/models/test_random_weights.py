"""Models with random weights: what precision their parts are in."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from compress.models.random_weights import build_random
from tests.compress.models.material import BACKBONES


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rotary_frequencies_stay_in_float32(backbone: str) -> None:
    wide, half = build_random(backbone), build_random(backbone, dtype=torch.bfloat16)
    frequencies = {name: buffer for name, buffer in wide.named_buffers() if "inv_freq" in name}
    assert frequencies
    found = dict(half.named_buffers())
    for name, expected in frequencies.items():
        assert found[name].dtype == torch.float32 and torch.equal(found[name], expected)
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    rounded = dict(build_random(backbone).to(torch.bfloat16).named_buffers())
    assert any(not torch.equal(rounded[name].float(), expected) for name, expected in frequencies.items())
