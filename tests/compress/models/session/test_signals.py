"""Saliency, density and complexity as a session gathers them, against the plain model and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from compress.attach import Attachable
from compress.compressor import Pipeline
from compress.errors import CompressError
from compress.infomerge import InfoMerge
from compress.metom import BTM, RPM
from compress.models import adapt
from compress.models.inputs.random_weights import build_random
from compress.models.session.signals import MetaSignals, group_frames
from compress.ops.saliency import PoolingHead
from compress.plan import MergePlan
from compress.stage import Compression, Signals
from tests.compress.models.material import BACKBONES, generate, inputs_of, sharp_model, video_meta


class Listener(Attachable):
    """Keeps everything and remembers what it was given."""

    def before_llm(self, tokens: torch.Tensor, signals: Signals) -> Compression:
        self.tokens, self.signals = tokens, signals
        count = tokens.shape[0] * tokens.shape[1]
        return Compression(method="listener", plan=MergePlan.identity(count), frames=len(tokens), nominal=count)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saliency_is_the_attention_that_tokens_receive(backbone: str) -> None:
    listener, meta = Listener(), video_meta()
    model, eager = sharp_model(backbone), sharp_model(backbone, attention="eager")
    inputs = inputs_of(model, meta)
    with listener.attach(model, meta) as session:
        generate(model, inputs, steps=1)
    saliency = listener.signals.saliency
    assert saliency is not None and saliency.shape == listener.tokens.shape[:2]
    pixels = inputs["pixel_values_videos"]
    with torch.no_grad():
        if backbone.startswith("llava"):
            output = eager.model.vision_tower(pixels[0], output_attentions=True)
            received = output.attentions[-1].mean(dim=(1, 2))
            side = int(received.shape[1] ** 0.5)
            expected = session.adapter.pool(received.view(-1, side, side))
        else:
            frames, rows, cols = inputs["video_grid_thw"][0].tolist()
            seen: list[torch.Tensor] = []

            def see(module: Any, args: Any, output: Any) -> None:
                seen.append(args[0])

            visual = eager.model.visual
            handle = visual.blocks[-1].norm1.register_forward_hook(lambda m, a, o: seen.append(o))
            rotary: list[Any] = []
            watch = visual.rotary_pos_emb.register_forward_hook(lambda m, a, o: rotary.append(o))
            visual(pixels, grid_thw=inputs["video_grid_thw"])
            handle.remove()
            watch.remove()
            attention = visual.blocks[-1].attn
            (cos, sin) = rotary[0]
            order = torch.arange(len(cos))
            if backbone == "qwen2.5-vl-tiny":
                from transformers.vision_utils import get_vision_window_index

                index, _ = get_vision_window_index(inputs["video_grid_thw"], 2, visual.window_size, visual.patch_size)
                order = order.view(-1, 4)[index].flatten()
            heads = attention.num_heads
            q, k, _ = attention.qkv(seen[0]).view(len(cos), 3, heads, -1).unbind(1)

            def rotate(x: torch.Tensor) -> torch.Tensor:
                half = x.shape[-1] // 2
                turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
                return x * cos[order][:, None] + turned * sin[order][:, None]

            per_frame = rows * cols
            q, k = (rotate(x).view(frames, per_frame, heads, -1).transpose(1, 2) for x in (q, k))
            received = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(dim=(1, 2)).flatten()
            in_units = torch.empty_like(received)
            in_units[order] = received
            expected = in_units.view(frames, -1, 4).mean(dim=2)
    torch.testing.assert_close(saliency, expected, rtol=1e-4, atol=1e-8)
    assert (saliency - expected.flip(1)).abs().max() > 1e-4
    assert listener.signals.saliency_source == session.adapter.saliency_source


def test_saliency_of_merged_patches_is_that_of_their_region() -> None:
    for backbone in BACKBONES:
        model, meta, listener = sharp_model(backbone), video_meta(), Listener()
        with Pipeline(RPM(target_keep=0.5), listener).attach(model, meta) as session:
            generate(model, inputs_of(model, meta), steps=1)
        saliency, plan = listener.signals.saliency, session.results[0].before_encoder.plan
        assert saliency is not None and torch.isfinite(saliency).all() and plan.count_out < plan.count_in
        assert saliency.shape == listener.tokens.shape[:2]


def test_pooling_head() -> None:
    transformers = pytest.importorskip("transformers")
    model, meta, listener = sharp_model(BACKBONES[0]), video_meta(), Listener()
    config = transformers.SiglipVisionConfig(**{**model.config.vision_config.to_dict(), "vision_use_head": True})
    torch.manual_seed(3)
    whole = transformers.SiglipVisionModel(config).eval()
    for weight in whole.parameters():
        nn.init.normal_(weight, std=0.3)
    inputs = inputs_of(model, meta)
    with listener.attach(model, meta, pooling_head=PoolingHead.fold(whole.state_dict(), heads=2)):
        generate(model, inputs, steps=1)
    with torch.no_grad():
        tower = model.model.vision_tower
        encoded = tower(inputs["pixel_values_videos"][0], output_hidden_states=True).hidden_states[-1]
        normed = whole.post_layernorm(encoded)
        head = whole.head
        probe = head.probe.repeat(len(normed), 1, 1)
        _, attention = head.attention(probe, normed, normed)
        features = head(normed)
    pooled = adapt(model).pool(attention[:, 0].view(-1, 5, 5))
    torch.testing.assert_close(listener.signals.saliency, pooled, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(listener.signals.frame_features, features, rtol=1e-4, atol=1e-4)
    assert listener.signals.saliency_source == "pooling head"


@pytest.mark.parametrize(
    ("method", "read"),
    [
        (BTM(retention=0.5), {"density", "packet_size"}),
        (InfoMerge(retention=0.5), {"saliency", "richness"}),
        (Pipeline(RPM(target_keep=0.5), InfoMerge(retention=0.5)), {"saliency", "richness", "rpm"}),
    ],
)
def test_sources_are_of_signals_that_were_read(method: Any, read: set[str]) -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    with method.attach(model, meta) as session:
        generate(model, inputs_of(model, meta), steps=1)
    assert {"density", "packet_size", "saliency", "richness", "rpm"} & set(session.results[0].sources) == read


@pytest.mark.parametrize("method", [BTM(), InfoMerge(retention=1.0)])
def test_methods_that_need_no_saliency_cost_no_attention(method: Any) -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    with method.attach(model, meta) as session:
        assert not hasattr(model.model.vision_tower.encoder.layers[-1].self_attn, "_compress_tap")
        generate(model, inputs_of(model, meta), steps=1)
    assert "saliency" not in session.results[0].sources


@pytest.mark.parametrize("backbone", BACKBONES)
def test_density_of_tokens(backbone: str) -> None:
    """Energy only in the lower right of the second half of the frames: its tokens are the densest."""
    model, meta = sharp_model(backbone), video_meta()
    assert meta.energy_carried is not None
    energy = np.zeros_like(meta.energy_carried)
    energy[2:, 8:, 12:] = 1
    extent = np.array([[0, 1]] * 4, np.float32)
    meta = type(meta)(**{**vars(meta), "energy_carried": energy, "range_carried": extent})
    listener = Listener()
    with listener.attach(model, meta, map="carried"):
        generate(model, inputs_of(model, meta), steps=1)
    density = np.asarray(listener.signals.density).reshape(len(listener.tokens), *listener.signals.grid)
    half = len(density) // 2
    assert density[half:, -1, -1].min() > (0.01 if backbone == "llava-video-tiny" else 0.6)
    assert density[half:, 0, 0].max() == 0
    assert listener.signals.packet_size.shape == (len(density),)


def test_temporal_patches_take_the_mean() -> None:
    values = np.array([1.0, 3.0, 5.0])
    assert group_frames(values, 1) is values
    assert group_frames(values, 2).tolist() == [2.0, 5.0]


def test_texture_stands_in_for_residuals() -> None:
    model, meta = build_random(BACKBONES[0]), video_meta()
    bare = type(meta)(**{**vars(meta), "energy_carried": None, "range_carried": None})
    signals = MetaSignals(bare, adapt(model), "auto")
    assert signals.maps.patches == signals.maps.tokens == "texture"
    density = signals.density((4, 5, 5))
    assert density.shape == (4, 5, 5) and 0 <= density.min() < density.max() <= 1
    for map, skipped in (("auto", False), ("none", True)):
        with RPM().attach(model, bare, map=map) as session:
            generate(model, inputs_of(model, bare), steps=1)
        assert (session.results[0].before_encoder is None) == skipped
        assert session.results[0].sources["rpm"] == ("skipped: map is none" if skipped else "texture")


class Unread(InfoMerge):
    """Fails where it is given what it does not read."""

    def before_llm(self, tokens: torch.Tensor, signals: Signals) -> Compression:
        assert signals.density is None and signals.packet_size is None and signals.saliency is not None
        return super().before_llm(tokens, signals)


def test_only_signals_that_are_read_are_made() -> None:
    model, meta = sharp_model(BACKBONES[0]), video_meta()
    bare = type(meta)(**{**vars(meta), "energy_carried": None, "range_carried": None, "frames": None})
    inputs = inputs_of(model, meta)
    with Unread(retention=0.5).attach(model, bare) as session:
        generate(model, inputs, steps=1)
    assert session.results[0].tokens_out < session.results[0].tokens_in
    # Metadata of another video is noticed all the same, and a method that says nothing is given everything.
    with Unread(retention=0.5).attach(model, video_meta(frames=3)), pytest.raises(CompressError, match="frames"):
        generate(model, inputs, steps=1)
    listener = Listener()
    with listener.attach(model, meta):
        generate(model, inputs, steps=1)
    assert listener.signals.density is not None and listener.signals.packet_size is not None


@pytest.mark.parametrize("backbone", ["llava-onevision-tiny", "qwen2-vl-tiny"])
def test_scores_are_the_same_where_gradients_are_kept(backbone: str) -> None:
    """Attention is then the configured kernel's, with the scores computed separately."""
    model, meta = sharp_model(backbone), video_meta()
    inputs = inputs_of(model, meta)
    found = []
    for keep in (False, True):
        listener = Listener()
        with torch.set_grad_enabled(keep), Pipeline(RPM(target_keep=0.5), listener).attach(model, meta):
            logits = model(**inputs).logits
        assert logits.requires_grad == keep
        found.append((listener.signals.saliency, logits.detach()))
    (saliency, logits), (beside, kept) = found
    torch.testing.assert_close(saliency, beside.detach(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(logits, kept, rtol=0, atol=2e-5)
