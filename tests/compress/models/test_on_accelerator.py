"""Every backbone with every stage on an accelerator that is not there: no tensor on the wrong device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from compress.compressor import Pipeline
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM
from compress.models.inputs.random_weights import build_random
from tests.compress.models.material import inputs_of, sharp_model, video_meta
from tests.oracle.accelerator import DEVICE, Accelerator, OnAccelerator

BACKBONES = ("llava-onevision-tiny", "llava-video-tiny", "qwen2-vl-tiny", "qwen2.5-vl-tiny", "qwen3-vl-tiny")


def move(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put weights there, which `Module.to` cannot do with subclasses of tensors."""
    for module in model.modules():
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                del module._parameters[name]
                object.__setattr__(module, name, OnAccelerator(weight.detach()))
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else OnAccelerator(buffer)
    monkeypatch.setattr(PreTrainedModel, "device", DEVICE)
    monkeypatch.setattr(PreTrainedModel, "dtype", torch.float32)
    make = torch.tensor

    def tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
        if isinstance(data, list):
            data = [one.tolist() if isinstance(one, torch.Tensor) else one for one in data]
        made = make(data, **options)
        return made if device is None else made.to(device)

    # Older versions of transformers ask whether this device casts by itself; PyTorch does not know.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    # It fills what it makes without asking the dispatcher.
    monkeypatch.setattr(torch, "tensor", tensor)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_stages_run_there_as_on_the_cpu(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = video_meta()
    model = copy.deepcopy(sharp_model(backbone))
    inputs = inputs_of(model, meta)
    methods = (
        InfoMerge(retention=0.3),
        Pipeline(RPM(target_keep=0.5), BTM(retention=0.5), MATM(layers=(0, 1))),
        Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.5)),
    )
    expected = []
    with torch.no_grad():
        for method in methods:
            with method.attach(model, meta):
                expected.append(model(**inputs, use_cache=True).logits[:, -1])
        plain = model(**inputs, use_cache=True).logits[:, -1]
        move(model, monkeypatch)
        with Accelerator():
            there = {name: tensor.to(DEVICE) for name, tensor in inputs.items()}
            for method, logits in zip(methods, expected, strict=True):
                with method.attach(model, meta):
                    found = model(**there, use_cache=True).logits[:, -1]
                scale = float(logits.abs().max())
                torch.testing.assert_close(found.held, logits, rtol=0, atol=1e-3 * scale)
                assert (found.held - plain).abs().max() > 0.01 * scale


@pytest.mark.parametrize(("backbone", "waits"), [("llava-onevision-tiny", 0), ("qwen2-vl-tiny", 3)])
def test_the_encoder_of_merged_patches_waits_for_nothing(
    backbone: str, waits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond what transformers reads of the videos' sizes before the first block."""
    meta = video_meta()
    model = copy.deepcopy(sharp_model(backbone))
    inputs = inputs_of(model, meta)
    with torch.no_grad(), RPM(target_keep=0.5).attach(model, meta) as session:
        move(model, monkeypatch)
        encoder = getattr(session.adapter, "tower", None) or session.adapter.visual
        with Accelerator() as accelerator:
            there = {name: tensor.to(DEVICE) for name, tensor in inputs.items()}
            found: list[Any] = []
            encoder.register_forward_pre_hook(lambda *_: accelerator.reset())
            encoder.register_forward_hook(lambda *_: found.append(accelerator.waits.copy()))
            model(**there, use_cache=True)
    assert found[0].total() <= waits, found
    assert session.results[0].before_encoder is not None


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_waits_of_all_stages(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two for what the session reads of the prompt, two for sizes of Qwen's videos, one per method for its checks."""
    meta = video_meta()
    model = copy.deepcopy(sharp_model(backbone))
    inputs = inputs_of(model, meta)
    own, unpaired = 2 if backbone == "llava-onevision-tiny" else 4, BTM(retention=0.5, tau_tem=1)
    with torch.no_grad():
        move(model, monkeypatch)
        with Accelerator() as accelerator:
            there = {name: tensor.to(DEVICE) for name, tensor in inputs.items()}
            accelerator.reset()
            model(**there, use_cache=True)
            plain = accelerator.waits.total()
            for method, waits in (
                (unpaired, own + 1),
                (Pipeline(RPM(target_keep=0.5), unpaired, MATM(layers=(0, 1))), own + 2),
            ):
                with method.attach(model, meta):
                    accelerator.reset()
                    model(**there, use_cache=True)
                assert accelerator.waits.total() <= plain + waits, accelerator.waits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_half_precision_runs_there(backbone: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there: a processor takes other paths through packed attention and its scores."""
    meta, model = video_meta(), build_random(backbone, dtype=dtype)
    inputs = inputs_of(model, meta)
    method = Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.5), MATM(layers=(0, 1)))
    with torch.no_grad(), Accelerator():
        move(model, monkeypatch)
        monkeypatch.setattr(PreTrainedModel, "dtype", dtype)
        there = {name: tensor.to(DEVICE) for name, tensor in inputs.items()}
        for compressor in (method, Pipeline(RPM(target_keep=0.5), BTM(retention=0.5))):
            with compressor.attach(model, meta) as session:
                logits = model(**there, use_cache=True).logits
            assert logits.dtype == dtype and bool(logits.isfinite().all())
            assert session.results[0].tokens_out < session.results[0].tokens_in
