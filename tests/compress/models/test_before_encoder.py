"""Merging patches before the encoder against encoders that are called frame by frame."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from compress.compressor import Pipeline
from compress.metom import BTM, RPM, MeToM
from compress.models.session import session as session_module
from compress.plan import MergePlan
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import record_prompt, token_layout

CLOSE = 2e-5


def features_of(model: Any, inputs: dict[str, Tensor], session: Any = None) -> Tensor:
    """Visual tokens that reach the decoder."""
    prompt = record_prompt(model, inputs)
    return prompt["inputs_embeds"][0][token_layout(model, inputs["input_ids"][0])[0]]


def siglip_oracle(model: Any, inputs: dict[str, Tensor], plan: MergePlan, *, one_segment: bool = False) -> Tensor:
    core = model.model
    tower = core.vision_tower
    pixels = inputs["pixel_values_videos"][0]
    embeddings = tower.embeddings(pixels)
    frames, per_frame, _ = embeddings.shape
    merged = (plan.dense().double() @ embeddings.flatten(0, 1).double()).float()
    frame_of = plan.keep // per_frame
    segments = [torch.arange(len(merged))] if one_segment else [torch.where(frame_of == t)[0] for t in range(frames)]
    encoded = torch.empty_like(merged)
    for segment in segments:
        hidden = merged[segment][None]
        for layer in tower.encoder.layers:
            hidden = layer(hidden, None)
            hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        encoded[segment] = hidden[0]
    spread = encoded[plan.assign].view(frames, per_frame, -1)
    pooled = core.apply_pooling(core.multi_modal_projector(spread))
    if type(model).__name__.startswith("LlavaVideo"):
        side = model.config.vision_config.image_size // model.config.vision_config.patch_size // 2
        pooled = pooled.view(frames, side, side + 1, -1)[:, :, :-1]
    return pooled.flatten(0, -2)


def qwen_oracle(model: Any, inputs: dict[str, Tensor], plan: MergePlan, *, one_segment: bool = False) -> Tensor:
    visual = model.model.visual
    frames, rows, cols = inputs["video_grid_thw"][0].tolist()
    merge = visual.spatial_merge_size
    # (frame, row, column) of the patches in the order of pixel rows
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

    def unit_of(t: int, r: int, c: int) -> int:
        return (t * (rows // unit) + r // unit) * (cols // unit) + c // unit

    dense = plan.dense().double()
    tokens, positions, windows, of_frame, token_at = [], [], [], [], {}
    parts = [(i, j) for i in range(unit) for j in range(unit)]
    side = visual.window_size // merge // visual.patch_size if windowed else 1
    for number, anchor in enumerate(plan.keep.tolist()):
        t, u, v = anchor // (rows // unit * (cols // unit)), anchor // (cols // unit) % (rows // unit), 0
        v = anchor % (cols // unit)
        for part in parts:
            members = [
                n
                for n, (f, r, c) in enumerate(where)
                if dense[number, unit_of(f, r, c)] > 0 and (r % unit, c % unit) == part
            ]
            tokens.append(hidden[members].double().mean(0).float())
            positions.append([sum(where[n][axis] for n in members) / len(members) for axis in (1, 2)])
            windows.append((t, u // side, v // side))
            of_frame.append(t)
            for n in members:
                token_at[n] = len(tokens) - 1
    stream = torch.stack(tokens)
    cos, sin = visual.rotary_pos_emb(stream, torch.tensor(positions))
    full = getattr(visual, "fullatt_block_indexes", range(len(visual.blocks)))
    spread = torch.tensor([token_at[n] for n in range(len(where))])
    for number, block in enumerate(visual.blocks):
        group = of_frame if number in full else windows
        groups = [[0] * len(group)] if one_segment else [group]
        after = torch.empty_like(stream)
        for key in sorted(set(groups[0])):
            members = [n for n, one in enumerate(groups[0]) if one == key]
            bounds = torch.tensor([0, len(members)], dtype=torch.int32)
            after[members] = block(stream[members], cu_seqlens=bounds, position_embeddings=(cos[members], sin[members]))
        stream = after
    return visual.merger(stream[spread])


@pytest.mark.parametrize("attention", ("sdpa", "eager"))
@pytest.mark.parametrize("backbone", BACKBONES)
def test_merged_patches_equal_frames_on_their_own(backbone: str, attention: str) -> None:
    model, meta = sharp_model(backbone, attention=attention), video_meta()
    inputs = inputs_of(model, meta)
    with torch.no_grad(), RPM(target_keep=0.5).attach(model, meta) as session:
        features = features_of(model, inputs)
        (result,) = session.results
    assert result.before_encoder is not None
    plan = result.before_encoder.plan
    assert plan.count_out < 0.75 * plan.count_in
    oracle = siglip_oracle if backbone.startswith("llava") else qwen_oracle
    with torch.no_grad():
        scale = float(features.abs().max())
        torch.testing.assert_close(features, oracle(model, inputs, plan), rtol=0, atol=CLOSE * scale)
        if backbone != "qwen2.5-vl-tiny":
            wrong = oracle(model, inputs, plan, one_segment=True)
            assert (features - wrong).abs().max() > 20 * CLOSE * scale
        plain = features_of(model, inputs)
        assert (features - plain).abs().max() > 20 * CLOSE * scale


def test_a_video_of_other_length_is_refused() -> None:
    from compress.errors import CompressError

    model = sharp_model(BACKBONES[0])
    inputs = inputs_of(model, video_meta())
    with RPM().attach(model, video_meta(frames=3)), pytest.raises(CompressError, match="frames"):
        generate(model, inputs, steps=1)


def test_where_it_costs_time_patches_merge_on_request_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, meta = sharp_model("llava-onevision-tiny"), video_meta()
    inputs = inputs_of(model, meta)

    def merged(method: Any, **options: Any) -> tuple[float, str]:
        with torch.no_grad(), method.attach(model, meta, **options) as session:
            model(**inputs)
            (result,) = session.results
        patches = 1.0 if result.before_encoder is None else result.before_encoder.plan.retention
        return patches, result.sources["rpm"]

    default = MeToM(layers=(0, 1))
    assert merged(default)[0] < 1
    monkeypatch.setattr(session_module, "_SLOWER_WITH_MERGED_PATCHES", ("cpu",))
    patches, source = merged(default)
    assert patches == 1 and source.startswith("skipped: off by default on a GPU, where merging 13 % of the patches")
    assert merged(default, map="texture")[0] < 1
    assert merged(MeToM(layers=(0, 1), target_keep=0.5))[0] < 0.75
    assert merged(Pipeline(RPM(), BTM(retention=0.5)))[0] < 1
