"""Merging between the encoder's blocks against encoders that are called block by block, one frame after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from compress.attach import Attachable
from compress.baselines import EarlyTom, ToMe, VisionZip
from compress.budget import round_half_up
from compress.compressor import Pipeline
from compress.errors import ConfigError
from compress.metom import MATM, RPM
from compress.models.inputs.prompt import pad_batch
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta
from tests.compress.models.oracle import record_prompt, token_layout
from tests.oracle import merging as oracle
from tests.oracle.earlytom import fold, walk

CLOSE = 2e-5


@dataclass
class Token:
    """A token on its way: what it is, the patches that it is the mean of, and where it counts as being."""

    hidden: Tensor
    patches: dict[int, float]
    position: Tensor
    window: int


class Tower:
    """The vision encoder of a model in pieces, for one frame at a time."""

    def __init__(self, model: Any, inputs: dict[str, Tensor]) -> None:
        core = model.model
        self.core = core
        self.siglip = hasattr(core, "vision_tower")
        if self.siglip:
            pixels = inputs["pixel_values_videos"][0]
            embeddings = core.vision_tower.embeddings(pixels)
            self.blocks = list(core.vision_tower.encoder.layers)
            self.frames = [[Token(h, {n: 1.0}, torch.zeros(2), 0) for n, h in enumerate(frame)] for frame in embeddings]
            self.full = set(range(len(self.blocks)))
            return
        visual = core.visual
        self.visual, self.blocks = visual, list(visual.blocks)
        count, rows, cols = inputs["video_grid_thw"][0].tolist()
        size = visual.spatial_merge_size
        where = [
            (t, r * size + i, c * size + j)
            for t in range(count)
            for r in range(rows // size)
            for c in range(cols // size)
            for i in range(size)
            for j in range(size)
        ]
        hidden = visual.patch_embed(inputs["pixel_values_videos"])
        if hasattr(visual, "pos_embed"):
            from transformers.vision_utils import get_vision_interpolation_indices_and_weights

            index, weight = get_vision_interpolation_indices_and_weights(
                inputs["video_grid_thw"], visual.num_grid_per_side, "bilinear", True, size
            )
            hidden = hidden + (visual.pos_embed(index) * weight[..., None]).sum(1)
        windowed = hasattr(visual, "window_size")
        side = visual.window_size // visual.patch_size if windowed else max(rows, cols)
        self.full = set(visual.fullatt_block_indexes) if windowed else set(range(len(self.blocks)))
        self.frames = [[] for _ in range(count)]
        across = -(-cols // side)
        order = sorted(range(len(where)), key=lambda n: (where[n][0], where[n][1] // side, where[n][2] // side))
        for n in order:  # by windows, in each as before
            t, r, c = where[n]
            window = r // side * across + c // side
            self.frames[t].append(Token(hidden[n], {n: 1.0}, torch.tensor([float(r), float(c)]), window))

    def attend(self, number: int, frame: list[Token], *, sizes: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return attention's output, keys (mean over heads) and what each token receives (mean), of a frame."""
        block = self.blocks[number]
        stream = torch.stack([one.hidden for one in frame])
        if self.siglip:
            module, normed = block.self_attn, block.layer_norm1(stream)
            query, key, value = (
                proj(normed).view(len(frame), -1, module.head_dim).transpose(0, 1)
                for proj in (module.q_proj, module.k_proj, module.v_proj)
            )
        else:
            module, normed = block.attn, block.norm1(stream)
            query, key, value = module.qkv(normed).view(len(frame), 3, module.num_heads, -1).permute(1, 2, 0, 3)
            cos, sin = self.visual.rotary_pos_emb(stream, torch.stack([one.position for one in frame]))

            def rotate(x: Tensor) -> Tensor:
                half = x.shape[-1] // 2
                return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin

            query, key = rotate(query), rotate(key)
        logits = query @ key.mT / query.shape[-1] ** 0.5
        window = torch.tensor([one.window if number not in self.full else 0 for one in frame])
        logits = logits.masked_fill(window[:, None] != window, -torch.inf)
        received = logits.softmax(dim=-1).mean(dim=(0, 1)) * len(frame)
        received = received / torch.bincount(window)[window]
        if sizes:
            logits = logits + torch.tensor([float(len(one.patches)) for one in frame]).log()
        out = (logits.softmax(dim=-1) @ value).transpose(0, 1).reshape(len(frame), -1)
        return (module.out_proj if self.siglip else module.proj)(out), key.mean(dim=0), received

    def mlp(self, number: int, stream: Tensor) -> Tensor:
        block = self.blocks[number]
        return block.mlp((block.layer_norm2 if self.siglip else block.norm2)(stream))

    def finish(self, frames: list[list[Token]], of_frame: list[int] | None = None) -> Tensor:
        """Give every patch its token's features and return the visual tokens that reach the decoder."""
        if self.siglip:
            spread = []
            for t in range(len(self.frames)):
                at = {n: one.hidden for one in frames[t if of_frame is None else of_frame[t]] for n in one.patches}
                spread.append(torch.stack([at[n] for n in range(len(self.frames[t]))]))
            pooled = self.core.apply_pooling(self.core.multi_modal_projector(torch.stack(spread)))
            if type(self.core).__name__.startswith("LlavaVideo"):
                vision = self.core.config.vision_config
                side = vision.image_size // vision.patch_size // 2
                pooled = pooled.view(len(spread), side, side + 1, -1)[:, :, :-1]
            return pooled.flatten(0, -2)
        at = {n: one.hidden for frame in frames for one in frame for n in one.patches}
        if of_frame is not None:
            per_frame = len(self.frames[0])
            first: dict[int, int] = {}
            for t, group in enumerate(of_frame):
                first.setdefault(group, t)
            at = {
                t * per_frame + n: {k % per_frame: one.hidden for one in frames[group] for k in one.patches}[n]
                for t, group in enumerate(of_frame)
                for n in range(per_frame)
            }
        return self.visual.merger(torch.stack([at[n] for n in range(len(at))]))


def tome_features(model: Any, inputs: dict[str, Tensor], method: ToMe) -> Tensor:
    tower = Tower(model, inputs)
    done = []
    for frame in tower.frames:
        counts = method.counts(len(frame), len(tower.blocks))
        for number in range(len(tower.blocks)):
            out, keys, _ = tower.attend(number, frame, sizes=method.prop_attn)
            for one, add in zip(frame, out, strict=True):
                one.hidden = one.hidden + add
            edges = oracle.match(keys.double().numpy(), counts[number])
            for source, target in edges:
                a, b = frame[source], frame[target]
                i, j = len(a.patches), len(b.patches)
                b.hidden = (a.hidden * i + b.hidden * j) / (i + j)
                b.position = (a.position * i + b.position * j) / (i + j)
                b.patches = {**b.patches, **a.patches}
            gone = {source for source, _ in edges}
            left = [frame[n] for n in range(0, len(frame), 2) if n not in gone] if counts[number] else None
            frame = frame if left is None else [*left, *frame[1::2]]
            frame.sort(key=lambda one: one.window)
            for one, add in zip(frame, tower.mlp(number, torch.stack([one.hidden for one in frame])), strict=True):
                one.hidden = one.hidden + add
        done.append(frame)
    return tower.finish(done)


def features_of(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    prompt = record_prompt(model, inputs)
    return prompt["inputs_embeds"][0][token_layout(model, inputs["input_ids"][0])[0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_tome_equals_blocks_called_one_by_one(backbone: str, attention: str) -> None:
    model, meta = sharp_model(backbone, attention=attention), video_meta()
    inputs, method = inputs_of(model, meta), ToMe(retention=0.4)
    with torch.no_grad():
        with method.attach(model, meta) as session:
            features = features_of(model, inputs)
        merged = session.results[0].inside_encoder
        assert merged is not None
        whole = len(merged.origin)
        per_frame = whole // merged.frames_in
        assert len(merged.keep) == merged.frames_in * round_half_up(0.4 * per_frame)
        entering = merged.entering_blocks(max(merged.counts) + 2)
        assert entering[0] == (merged.frames_in, per_frame)
        assert entering[-1] == (merged.frames, len(merged.keep) // merged.frames)
        assert [size for _, size in entering] == sorted({size for _, size in entering}, reverse=True)
        merged.plan.check()
        scale = float(features.abs().max())
        torch.testing.assert_close(features, tome_features(model, inputs, method), rtol=0, atol=CLOSE * scale)
        if attention == "sdpa":
            blind = tome_features(model, inputs, ToMe(retention=0.4, prop_attn=False))
            assert (features - blind).abs().max() > 20 * CLOSE * scale
            assert (features - features_of(model, inputs)).abs().max() > 20 * CLOSE * scale


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sizes_need_not_count_in_attention(backbone: str) -> None:
    model, meta, method = sharp_model(backbone), video_meta(), ToMe(r=3, prop_attn=False, schedule="decreasing")
    inputs = inputs_of(model, meta)
    with torch.no_grad(), method.attach(model, meta):
        features = features_of(model, inputs)
    with torch.no_grad():
        scale = float(features.abs().max())
        torch.testing.assert_close(features, tome_features(model, inputs, method), rtol=0, atol=CLOSE * scale)


class OnlyInside(Attachable):
    """The stage inside the encoder of a method, without its others."""

    def __init__(self, method: Any) -> None:
        self.inside_encoder = method.inside_encoder
        self.merge_point = method.merge_point
        self.merge_blocks = method.merge_blocks
        self.scored_block = method.scored_block
        self.weighs_by_size = method.weighs_by_size


def earlytom_features(model: Any, inputs: dict[str, Tensor], method: EarlyTom, released: bool) -> tuple[Any, ...]:
    """Features, frames that each frame became, segments, and the attention of the last block that folds."""
    tower = Tower(model, inputs)
    frames, of_frame = tower.frames, list(range(len(tower.frames)))
    least = -(-len(frames) * int(method.retention * 100) // 100)
    blocks = method.merge_blocks(len(tower.blocks))
    segments: list[int] = []
    saliency = None
    for number in range(len(tower.blocks)):
        scores = []
        for frame in frames:
            out, _, received = tower.attend(number, frame, sizes=False)
            scores.append(received)
            for one, add in zip(frame, out, strict=True):
                one.hidden = one.hidden + add
            for one, add in zip(frame, tower.mlp(number, torch.stack([one.hidden for one in frame])), strict=True):
                one.hidden = one.hidden + add
        if number in blocks:
            stack = torch.stack([torch.stack([one.hidden for one in frame]) for frame in frames])
            bounds = walk(stack.double().numpy(), method.T, method.M, method.ema)
            rows, group = fold(stack.double().numpy(), bounds, least=least, released=released)
            after = []
            saliency = []
            for row in rows:
                after.append(
                    [
                        Token(
                            sum(w * frames[t][n].hidden for t, w in row),
                            {k: 1.0 for t, _ in row[:1] for k in frames[t][n].patches},
                            frames[row[0][0]][n].position,
                            frames[row[0][0]][n].window,
                        )
                        for n in range(len(frames[0]))
                    ]
                )
                saliency.append(sum(w * scores[t] for t, w in row))
            frames, of_frame = after, [group[t] for t in of_frame]
            stack = torch.stack([torch.stack([one.hidden for one in frame]) for frame in frames])
            segments = walk(stack.double().numpy(), method.T, method.M, method.ema)
    return tower.finish(frames, of_frame), of_frame, segments, saliency


@pytest.mark.parametrize("fidelity", ["fixed", "reference"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_earlytom_equals_blocks_called_one_by_one(backbone: str, fidelity: Any) -> None:
    model, meta = sharp_model(backbone), video_meta(frames=9 if backbone.startswith("llava") else 18)
    inputs = inputs_of(model, meta)
    method = EarlyTom(retention=0.3, T=-1.0, M=11, prune_layers=(0, 1), fidelity=fidelity)
    with torch.no_grad():
        with OnlyInside(method).attach(model, meta) as session:
            features = features_of(model, inputs)
        merged = session.results[0].inside_encoder
        assert merged is not None
        assert merged.segments is not None
        answer, of_frame, segments, _ = earlytom_features(model, inputs, method, fidelity == "reference")
        assert merged.frame_groups.tolist() == of_frame
        assert max(of_frame) + 1 == merged.frames < merged.frames_in
        assert merged.segments.tolist() == segments
        scale = float(features.abs().max())
        torch.testing.assert_close(features, answer, rtol=0, atol=CLOSE * scale)
        assert (features - features_of(model, inputs)).abs().max() > 20 * CLOSE * scale
    with method.attach(model, meta) as session:
        generate(model, inputs, steps=1)
    result = session.results[0]
    assert "block 1" in result.sources["saliency"]
    if fidelity == "fixed":
        assert result.sources["frames"] == "folded in the encoder"
        assert result.tokens_out == round_half_up(0.3 * result.tokens_in)


def test_the_last_block_that_folds_says_what_is_salient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta(frames=9)
    inputs, method = inputs_of(model, meta), EarlyTom(retention=0.3, T=-1.0, M=8, prune_layers=(0,))
    seen: list[Tensor] = []
    choose = EarlyTom.choose

    def spy(self: EarlyTom, tokens: Tensor, signals: Any, count: int) -> Any:
        seen.append(signals.saliency)
        return choose(self, tokens, signals, count)

    monkeypatch.setattr(EarlyTom, "choose", spy)
    with torch.no_grad():
        with method.attach(model, meta) as session:
            generate(model, inputs, steps=1)
        _, of_frame, _, saliency = earlytom_features(model, inputs, method, released=False)
        maps = torch.stack([saliency[group] for group in of_frame]).view(9, *session.adapter.patch_grid)
        torch.testing.assert_close(seen[0], session.adapter.pool(maps), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("method", [ToMe(retention=0.5), EarlyTom(retention=0.4, T=-1.0, prune_layers=(0,))])
def test_a_batch_equals_its_rows(backbone: str, method: Any) -> None:
    model = sharp_model(backbone)
    metas = [video_meta(0, frames=8), video_meta(1, frames=8)]
    prompts = [inputs_of(model, metas[0], "What moves?"), inputs_of(model, metas[1], "Where does the square go now?")]
    with method.attach(model, metas) as session:
        together = torch.stack(generate(model, pad_batch(prompts), steps=2).logits, dim=1)
    assert len(session.results) == 2
    for row, (prompt, meta) in enumerate(zip(prompts, metas, strict=True)):
        with method.attach(model, meta):
            alone = torch.cat(generate(model, prompt, steps=2).logits)
        torch.testing.assert_close(together[row], alone, rtol=0, atol=CLOSE)
        assert (together[1 - row] - alone).abs().max() > 100 * CLOSE


@pytest.mark.parametrize("backbone", BACKBONES)
def test_with_a_method_after_it_and_without_metadata(backbone: str) -> None:
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    plain = torch.cat(generate(model, inputs, steps=2).logits)
    pipeline = Pipeline(ToMe(retention=0.6), VisionZip(retention=0.4), MATM(layers=(2,), merge_percent=50.0))
    with pipeline.attach(model) as session:
        generate(model, inputs, steps=2, num_beams=2)
    result = session.results[0]
    assert result.inside_encoder is not None
    assert result.tokens_out == round_half_up(0.4 * result.tokens_in)
    assert "attention" in result.sources["saliency"]
    torch.testing.assert_close(torch.cat(generate(model, inputs, steps=2).logits), plain, rtol=0, atol=0)
    with ToMe(retention=1.0).attach(model) as session:
        same = torch.cat(generate(model, inputs, steps=2).logits)
    torch.testing.assert_close(same, plain, rtol=0, atol=0)
    assert session.results[0].inside_encoder is None
    with pytest.raises(ConfigError, match="both before and inside"):
        Pipeline(RPM(), ToMe()).attach(model, meta)


def test_kernels_without_masks_are_refused() -> None:
    model = sharp_model(BACKBONES[0], attention="sdpa")
    tower = model.model.vision_tower
    tower.config._attn_implementation = "flex_attention"
    try:
        with pytest.raises(ConfigError, match="prop_attn=False"), ToMe().attach(model):
            pass
    finally:
        tower.config._attn_implementation = "sdpa"
