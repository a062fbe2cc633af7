"""The model before, after and outside a session, and what a session refuses."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

import transformers

from compress.compressor import Pipeline
from compress.errors import ConfigError, ShapeError, SignalError
from compress.infomerge import InfoMerge
from compress.metom import BTM, MATM, RPM, MeToM
from compress.models import adapt
from compress.models.adapters.adapter import part
from compress.models.inputs.prompt import pad_batch
from compress.models.session.kv_cache import CACHE, cache_of
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta

METOM = MeToM(retention=0.4, target_keep=0.7, layers=(1, 2), merge_percent=50.0)


def state_of(model: Any) -> dict[str, Any]:
    """Everything about a model that a session touches, or could."""
    hooks = {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(vars(module)))
        for name, module in model.named_modules()
    }
    kernels = [module.config._attn_implementation for module in model.modules() if hasattr(module, "config")]
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    return {"hooks": hooks, "kernels": kernels, "weights": weights, "config": model.config.to_json_string()}


def assert_same_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before["hooks"] == after["hooks"]
    assert before["kernels"] == after["kernels"]
    assert before["config"] == after["config"]
    assert all(torch.equal(before["weights"][name], weight) for name, weight in after["weights"].items())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_model_is_restored(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    plain = torch.cat(generate(model, inputs).logits)
    before = state_of(model)
    for compressor in (METOM, Pipeline(RPM(), InfoMerge(retention=0.2), MATM(layers=(2,)))):
        with compressor.attach(model, meta) as session:
            changed = torch.cat(generate(model, inputs).logits)
            assert state_of(model)["hooks"] != before["hooks"]
        assert not session.active
        assert_same_state(before, state_of(model))
        assert torch.equal(torch.cat(generate(model, inputs).logits), plain)
        assert not torch.equal(changed, plain)


class Failing(MATM):
    """Fails in the middle of a forward pass."""

    def inside_llm(self, scores: torch.Tensor, hidden: torch.Tensor) -> Any:
        raise RuntimeError("on purpose")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_model_is_restored_after_an_exception(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    plain = torch.cat(generate(model, inputs).logits)
    before = state_of(model)
    compressor = Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.2), Failing(layers=(1,)))
    with pytest.raises(RuntimeError, match="on purpose"), compressor.attach(model, meta):
        generate(model, inputs)
    assert_same_state(before, state_of(model))
    assert torch.equal(torch.cat(generate(model, inputs).logits), plain)


def test_a_session_that_cannot_begin_leaves_nothing() -> None:
    model = sharp_model("qwen2-vl-tiny")
    generate(model, inputs_of(model, video_meta()))
    before = state_of(model)
    from compress.ops.saliency import PoolingHead

    head = PoolingHead(query=torch.zeros(1, 1), weights={})
    with pytest.raises(ConfigError, match="not a SigLIP"):
        InfoMerge().attach(model, pooling_head=head).__enter__()
    assert_same_state(before, state_of(model))


def test_a_second_compressor_on_the_same_model_is_refused() -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    other = sharp_model(BACKBONES[1])
    with BTM().attach(model, meta):
        with pytest.raises(ConfigError, match="Pipeline"), InfoMerge().attach(model):
            pass
        with InfoMerge().attach(other):
            generate(other, inputs_of(other, meta), steps=1)
        generate(model, inputs_of(model, meta), steps=1)


def test_a_model_that_was_not_attached_to_is_noticed() -> None:
    """A session that is not entered, and a block in which another model runs, shorten nothing."""
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    with pytest.warns(UserWarning, match="nothing outside a `with` block"):
        InfoMerge().attach(model, meta)
        gc.collect()
    other = sharp_model(BACKBONES[1])
    with pytest.warns(UserWarning, match="LlavaOnevisionForConditionalGeneration was not called"):  # noqa: SIM117
        with InfoMerge().attach(model, meta):
            generate(other, inputs_of(other, meta), steps=1)
    with pytest.raises(KeyError), InfoMerge().attach(model, meta):
        raise KeyError


def test_unknown_models_are_named() -> None:
    class HomemadeModel(nn.Module):
        pass

    with pytest.raises(ConfigError, match=rf"HomemadeModel.*{transformers.__version__}.*Qwen2VL"):
        InfoMerge().attach(HomemadeModel())
    with pytest.raises(ConfigError, match=rf"HomemadeModel.*{transformers.__version__}.*'model.visual'"):
        part(HomemadeModel(), "model.visual")

    class Qwen2VLForConditionalGeneration(nn.Module):
        """The right name with the wrong parts."""

        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Module()

    with pytest.raises(ConfigError, match=r"model\.language_model"):
        adapt(Qwen2VLForConditionalGeneration())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_refusals(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    with METOM.attach(model, meta):
        with pytest.raises(ConfigError, match="static cache"):
            generate(model, inputs, cache_implementation="static")
        with pytest.raises(ConfigError, match="labels"):
            model(**inputs, labels=inputs["input_ids"])
        with pytest.raises(ConfigError, match="left"):
            right = {**inputs, "attention_mask": inputs["attention_mask"].clone()}
            right["attention_mask"][:, -2:] = 0
            model(**right)
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        with pytest.raises(ConfigError, match="input_ids"):
            model(inputs_embeds=embeddings)
        if "mm_token_type_ids" in inputs:
            without = {name: tensor for name, tensor in inputs.items() if name != "mm_token_type_ids"}
            with pytest.raises(ConfigError, match="mm_token_type_ids"):
                generate(model, without)
        generate(model, inputs, steps=1)
    plain = generate(model, inputs, steps=2)
    with METOM.attach(model, meta), pytest.raises(ConfigError, match="filled"):
        model(input_ids=inputs["input_ids"][:, -1:], **{CACHE: cache_of(plain)})


def test_impossible_combinations() -> None:
    model, meta = sharp_model("qwen3-vl-tiny"), video_meta()
    with pytest.raises(ConfigError, match="2 to 3"):
        MATM(layers=(0,)).attach(model)
    with pytest.raises(ConfigError, match="4 decoder layers"):
        MATM(layers=(13, 14, 15)).attach(model)
    with pytest.raises(ConfigError, match="metadata"):
        RPM().attach(model)
    with pytest.raises(ConfigError, match="no stage"):
        from compress.models import Session

        Session(object(), model)
    with pytest.raises(ConfigError, match="saliency"):
        InfoMerge().attach(model, saliency="sometimes")
    with BTM().attach(model), pytest.raises(SignalError, match="density"):
        generate(model, inputs_of(model, meta), steps=1)
    with BTM().attach(model, video_meta(frames=6)), pytest.raises(SignalError, match="2 frames"):
        generate(model, inputs_of(model, meta), steps=1)
    batch = pad_batch([inputs_of(model, meta)] * 3)
    with BTM().attach(model, [meta, meta]), pytest.raises(ShapeError, match="one per video"):
        generate(model, batch, steps=1)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_text_alone_passes_unchanged(backbone: str) -> None:
    model = sharp_model(backbone)
    ids = torch.arange(20, 60)[None]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plain = torch.cat(generate(model, inputs).logits)
    with METOM.attach(model, video_meta()) as session:
        assert torch.equal(torch.cat(generate(model, inputs).logits), plain)
        assert session.results == []


def test_nothing_outlives_the_session() -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    with METOM.attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=1)
    alive = weakref.ref(session)
    del session
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("backbone", BACKBONES)
def test_account(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    with Pipeline(RPM(target_keep=0.6), BTM(retention=0.5, tau_tem=1.0)).attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=1)
    (result,) = session.results
    assert result.tokens_out == result.before_llm.achieved == round(0.5 * result.tokens_in)
    assert result.before_encoder.achieved < result.before_encoder.plan.count_in
    assert result.sources["density"] == result.sources["rpm"] == "texture"
    budgets = result.before_llm.frame_budgets
    # Frames of the larger GoP get more.
    assert budgets.sum() == result.tokens_out and (len(set(budgets.tolist())) > 1 or result.tokens_in < 20)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_defaults_attach_to_models_of_any_depth(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    with MeToM().attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=2)
    assert session.compressor.layers == (1, 2)
    assert session.inside[0].achieved < session.results[0].tokens_out < session.results[0].tokens_in
