"""Decoder layers that are compiled: the same values, and nothing compiled again for another video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from compress.compressor import Pipeline
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM
from tests.compress.models.material import generate, inputs_of, sharp_model, video_meta

STEPS = 3
METHODS = {
    "infomerge": InfoMerge(retention=0.25),
    "matm": MATM(layers=(1, 2), merge_percent=60.0),
    "metom": Pipeline(RPM(target_keep=0.5), BTM(retention=0.5), MATM(layers=(2,), merge_percent=50.0)),
}


class Compiler:
    """A back end that runs what it is given as it is, and counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.graphs += 1
        return graph.forward


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    import torch._dynamo

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=64):
        yield Compiler()
    torch._dynamo.reset()


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_same_values_and_compiled_once(backbone: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    model = sharp_model(backbone)
    videos = [(meta, inputs_of(model, meta)) for meta in (video_meta(0), video_meta(1))]

    def answer(method: str, number: int) -> torch.Tensor:
        meta, inputs = videos[number]
        with METHODS[method].attach(model, meta):
            return torch.stack(generate(model, inputs, steps=STEPS).logits)

    expected = {(method, number): answer(method, number) for method in METHODS for number in (0, 1)}
    for layer in model.model.language_model.layers:
        compiled = torch.compile(layer.forward, backend=compiler, dynamic=True)
        monkeypatch.setattr(layer, "forward", compiled, raising=False)
    for method in METHODS:
        assert torch.equal(answer(method, 0), expected[method, 0])
    graphs = compiler.graphs
    assert graphs >= len(model.model.language_model.layers)
    for method in METHODS:
        found = answer(method, 1)
        assert torch.equal(found, expected[method, 1])
        assert not torch.equal(found, expected[method, 0])
    assert compiler.graphs == graphs
    with MATM(layers=(0, 1), merge_percent=60.0).attach(model, videos[0][0]):
        generate(model, videos[0][1], steps=STEPS)
    assert compiler.graphs > graphs
