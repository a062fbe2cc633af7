"""Reuse of static patches in the vision encoder against a loop over tokens, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from compress import RPM, Cover, InfoMerge, PatchReuse, Pipeline, Signals
from compress.errors import ConfigError
from compress.models.inputs.prompt import pad_batch
from compress.plan import MergePlan
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.test_before_encoder import CLOSE, features_of

REUSE = PatchReuse(tau=20)


@dataclass
class Patches:
    """Patches of a video in the order of the encoder's input.

    Attributes:
        hidden: (V, D), embeddings.
        frame: of each patch.
        unit: of each patch: the index that the plan has for what it belongs to.
        part: which part of that unit it is.
        window: of each patch, any key.
        rotary: cosines and sines, (V, d) each; None for an encoder that adds positions to embeddings.
    """

    hidden: Tensor
    frame: list[int]
    unit: list[int]
    part: list[int]
    window: list[Any]
    rotary: tuple[Tensor, Tensor] | None


def siglip_patches(model: Any, inputs: dict[str, Tensor]) -> Patches:
    embeddings = model.model.vision_tower.embeddings(inputs["pixel_values_videos"][0])
    frames, count, _ = embeddings.shape
    frame = [t for t in range(frames) for _ in range(count)]
    every = list(range(frames * count))
    return Patches(embeddings.flatten(0, 1), frame, every, [0] * len(every), frame, None)


def qwen_patches(model: Any, inputs: dict[str, Tensor]) -> Patches:
    visual = model.model.visual
    frames, rows, cols = inputs["video_grid_thw"][0].tolist()
    merge = visual.spatial_merge_size
    where = [
        (t, r * merge + i, c * merge + j)
        for t in range(frames)
        for r in range(rows // merge)
        for c in range(cols // merge)
        for i in range(merge)
        for j in range(merge)
    ]
    hidden = visual.patch_embed(inputs["pixel_values_videos"])
    if hasattr(visual, "pos_embed"):
        from transformers.vision_utils import get_vision_interpolation_indices_and_weights

        index, weight = get_vision_interpolation_indices_and_weights(
            inputs["video_grid_thw"], visual.num_grid_per_side, "bilinear", True, merge
        )
        hidden = hidden + (visual.pos_embed(index) * weight[..., None]).sum(1)
    windowed = hasattr(visual, "window_size")
    unit = merge if windowed else 1
    side = visual.window_size // visual.patch_size if windowed else 1
    rotary = visual.rotary_pos_emb(hidden, torch.tensor([[r, c] for _, r, c in where]))
    return Patches(
        hidden,
        [t for t, _, _ in where],
        [(t * (rows // unit) + r // unit) * (cols // unit) + c // unit for t, r, c in where],
        [r % unit * unit + c % unit for _, r, c in where],
        [(t, r // side, c // side) for t, r, c in where],
        rotary,
    )


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor] | None, at: list[int]) -> Tensor:
    """Turn (n, heads, d) by the angles of some patches."""
    if rotary is None:
        return x
    cos, sin = (one[at, None].float() for one in rotary)
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-high, low), dim=-1) * sin


def oracle(model: Any, inputs: dict[str, Tensor], plan: MergePlan, *, own_only: bool = False) -> Tensor:
    """Compute every token by itself; with ``own_only`` it sees only what its frame computes."""
    siglip = "pixel_values_videos" in inputs and inputs["pixel_values_videos"].dim() == 5
    patches = (siglip_patches if siglip else qwen_patches)(model, inputs)
    encoder = model.model.vision_tower.encoder if siglip else model.model.visual
    blocks = encoder.layers if siglip else encoder.blocks
    full = getattr(encoder, "fullatt_block_indexes", range(len(blocks)))
    keep = plan.keep.tolist()
    own = [v for v in range(len(patches.unit)) if patches.unit[v] in set(keep)]
    token_of = {(patches.unit[v], patches.part[v]): number for number, v in enumerate(own)}
    anchor = plan.keep[plan.assign].tolist()
    origin = [token_of[anchor[unit], part] for unit, part in zip(patches.unit, patches.part, strict=True)]
    stream = patches.hidden[own]
    for number, block in enumerate(blocks):
        group = patches.frame if number in full else patches.window
        if siglip:
            attention = block.self_attn
            x = block.layer_norm1(stream)
            q, k, v = (one(x) for one in (attention.q_proj, attention.k_proj, attention.v_proj))
            heads = attention.num_heads
        else:
            attention = block.attn
            q, k, v = attention.qkv(block.norm1(stream)).chunk(3, dim=-1)
            heads = attention.num_heads
        q, k, v = (one.unflatten(1, (heads, -1)) for one in (q, k, v))
        q, k = (rotate(one, patches.rotary, own) for one in (q, k))
        after = torch.empty_like(stream)
        for n, me in enumerate(own):
            seen = [origin[other] for other in range(len(origin)) if group[other] == group[me]]
            if own_only:
                seen = [other for other in sorted(set(seen)) if group[own[other]] == group[me]]
            logits = torch.einsum("hd,nhd->hn", q[n].double(), k[seen].double()) / q.shape[2] ** 0.5
            after[n] = torch.einsum("hn,nhd->hd", logits.softmax(1), v[seen].double()).flatten().float()
        if siglip:
            stream = stream + attention.out_proj(after)
            stream = stream + block.mlp(block.layer_norm2(stream))
        else:
            stream = stream + attention.proj(after)
            stream = stream + block.mlp(block.norm2(stream))
    spread = stream[origin]
    if not siglip:
        return encoder.merger(spread)
    core = model.model
    pooled = core.apply_pooling(core.multi_modal_projector(spread.view(max(patches.frame) + 1, -1, spread.shape[1])))
    if type(model).__name__.startswith("LlavaVideo"):
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size // 2
        pooled = pooled.view(len(pooled), side, side + 1, -1)[:, :, :-1]
    return pooled.flatten(0, -2)


@pytest.mark.parametrize("attention", ("sdpa", "eager"))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_reused_patches_equal_a_loop_over_tokens(backbone: str, attention: str) -> None:
    model, meta = sharp_model(backbone, attention=attention), video_meta(frames=6)
    inputs = inputs_of(model, meta)
    with torch.no_grad(), REUSE.attach(model) as session:
        features = features_of(model, inputs)
        (result,) = session.results
    assert result.before_encoder is not None
    plan = result.before_encoder.plan
    assert plan.count_out < 0.8 * plan.count_in
    assert result.tokens_out == result.tokens_in
    assert result.sources["reuse"] == f"{plan.count_out} of {plan.count_in} patches computed, by their pixels"
    with torch.no_grad():
        scale = float(features.abs().max())
        torch.testing.assert_close(features, oracle(model, inputs, plan), rtol=0, atol=CLOSE * scale)
        wrong = oracle(model, inputs, plan, own_only=True)
        assert (features - wrong).abs().max() > 20 * CLOSE * scale
        plain = features_of(model, inputs)
        assert (features - plain).abs().max() > 20 * CLOSE * scale


@pytest.mark.parametrize("backbone", BACKBONES)
def test_where_nothing_is_static_or_all_is_the_features_are_those_of_the_plain_model(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    still = inputs_of(model, meta)
    pixels = still["pixel_values_videos"]
    if pixels.dim() == 5:
        pixels[:] = pixels[:, :1].clone()
    else:
        pixels.view(2, -1)[1] = pixels.view(2, -1)[0]
    moving = {**still, "pixel_values_videos": pixels + torch.rand(pixels.shape)}
    with torch.no_grad():
        for inputs, tau, share in ((still, 0.0, 1 / (4 if pixels.dim() == 5 else 2)), (moving, 0.0, 1.0)):
            plain = features_of(model, inputs)
            with PatchReuse(tau=tau).attach(model) as session:
                features = features_of(model, inputs)
                (result,) = session.results
            assert result.before_encoder is not None
            assert result.before_encoder.plan.retention == share
            torch.testing.assert_close(features, plain, rtol=0, atol=CLOSE * float(plain.abs().max()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_precedes_methods_before_the_language_model(backbone: str) -> None:
    """It plans over what the encoder outputs for all patches, those that were reused included."""
    model, meta = sharp_model(backbone), video_meta(frames=6)
    inputs = inputs_of(model, meta)
    with torch.no_grad(), REUSE.attach(model) as session:
        features = features_of(model, inputs)
        frames = session.results[0].frames
    cover = Cover(retention=0.25)
    with torch.no_grad(), Pipeline(REUSE, cover).attach(model) as session:
        generate(model, inputs, steps=1)
        (result,) = session.results
    with torch.no_grad(), replace(cover, reuse=20).attach(model) as session:
        generate(model, inputs, steps=1)
        (field,) = session.results
    (place,) = session.adapter.locate(inputs["input_ids"], (), inputs)
    expected = cover.before_llm(features.view(frames, -1, features.shape[1]), Signals(grid=place.grid)).plan
    for one in (result, field):
        assert one.before_encoder is not None and one.before_llm is not None
        assert one.before_encoder.achieved < one.before_encoder.plan.count_in
        assert torch.equal(one.before_llm.plan.keep, expected.keep)
    assert "before_encoder" not in vars(cover)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_batch_equals_its_rows(backbone: str) -> None:
    model, method = sharp_model(backbone), Cover(retention=0.25, reuse=20)
    backwards = video_meta(1, frames=6)
    assert backwards.frames is not None
    metas = [video_meta(0, frames=6), replace(backwards, frames=np.ascontiguousarray(backwards.frames[::-1]))]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    with method.attach(model) as session:
        together = torch.stack(generate(model, pad_batch(prompts), steps=3).logits, dim=1)
    plans = [result.before_encoder.plan for result in session.results]
    for row, prompt in enumerate(prompts):
        with method.attach(model) as session:
            alone = torch.cat(generate(model, prompt, steps=3).logits)
        (result,) = session.results
        assert torch.equal(result.before_encoder.plan.keep, plans[row].keep)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE
    assert not torch.equal(plans[0].keep, plans[1].keep)


def test_saliency_is_that_of_the_frames_where_patches_were_computed() -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta(frames=6)
    inputs = inputs_of(model, meta)
    seen: list[Tensor] = []

    class Listener(InfoMerge):
        def before_llm(self, tokens: Tensor, signals: Any) -> Any:
            seen.append(signals.saliency)
            return super().before_llm(tokens, signals)

    listener = Listener(retention=0.5)
    for method in (listener, Pipeline(PatchReuse(tau=1e9), listener)):
        with torch.no_grad(), method.attach(model, saliency="attention"):
            model(**inputs)
    every, first = seen
    torch.testing.assert_close(first, every[:1].expand_as(first), rtol=1e-4, atol=1e-7)
    assert not torch.allclose(every, every[:1].expand_as(every), rtol=1e-2)


def test_patches_merge_once() -> None:
    with pytest.raises(ConfigError, match="PatchReuse and RPM both have the stage before_encoder"):
        Pipeline(PatchReuse(), RPM())
