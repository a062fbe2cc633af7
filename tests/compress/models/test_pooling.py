"""LLaVA-OneVision's pooling with channels last: the model's own values, and the model left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers")

from compress.models.adapters import llava_onevision
from compress.models.adapters.llava_onevision import LlavaOnevision
from compress.profiling.measure import Null
from tests.compress.models.material import generate, inputs_of, sharp_model, video_meta

FRAMES = 3


@pytest.fixture(scope="module")
def model() -> Any:
    return sharp_model("llava-onevision-tiny")


def make_features(model: Any, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    generator = torch.Generator().manual_seed(0)
    return torch.randn(FRAMES, patches, 70, generator=generator).to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("most_elements", [2**31 - 1, 2000, 1])
def test_values_are_those_of_the_model(
    model: Any, dtype: torch.dtype, most_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llava_onevision, "MOST_ELEMENTS", most_elements)
    features = make_features(model, dtype)
    expected = model.model.apply_pooling(features)
    found = LlavaOnevision(model).pool_features(features)
    assert found.is_contiguous()
    assert torch.equal(found, expected)
    assert not torch.equal(LlavaOnevision(model).pool_features(features.flip(1)), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_the_model_on_cuda(model: Any, dtype: torch.dtype) -> None:
    features = make_features(model, dtype, "cuda")
    found = LlavaOnevision(model).pool_features(features)
    torch.testing.assert_close(found, model.model.apply_pooling(features))


def test_pooled_without_changing_the_layout(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = []
    interpolate = F.interpolate

    def watch(maps: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if maps.shape[1] > 1:
            layouts.append(maps.is_contiguous(memory_format=torch.channels_last))
        return interpolate(maps, *args, **options)

    meta = video_meta()
    inputs = inputs_of(model, meta)
    monkeypatch.setattr(F, "interpolate", watch)
    generate(model, inputs, steps=1)
    assert layouts == [False]
    with Null().attach(model, meta):
        generate(model, inputs, steps=1)
    assert layouts == [False, True]
    generate(model, inputs, steps=1)
    assert layouts == [False, True, False]


def test_the_models_own_pooling_comes_back(model: Any) -> None:
    with pytest.raises(KeyError), Null().attach(model, video_meta()):
        assert "apply_pooling" in vars(model.model)
        raise KeyError
    assert "apply_pooling" not in vars(model.model)


def test_another_pooling_is_left_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subclasses pool as they like: LLaVA-Video does."""
    meta = video_meta()

    class Sharper(type(model.model)):
        def apply_pooling(self, features: torch.Tensor) -> torch.Tensor:
            return 2 * super().apply_pooling(features)

    inputs = inputs_of(model, meta)
    monkeypatch.setattr(model.model, "__class__", Sharper)
    plain = generate(model, inputs, steps=2)
    with Null().attach(model, meta):
        attached = generate(model, inputs, steps=2)
    assert torch.equal(torch.stack(attached.logits), torch.stack(plain.logits))
