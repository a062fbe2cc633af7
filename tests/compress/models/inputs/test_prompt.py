"""Pixels and prompts against other implementations and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

from compress.errors import ConfigError, ShapeError, SignalError
from compress.models import adapt
from compress.models.inputs.preprocess import (
    CLIP_MEAN,
    CLIP_STD,
    PixelSettings,
    fit_size,
    patch_pixels,
    resize,
    square_pixels,
)
from compress.models.inputs.prompt import pad_batch, prepare, take_clip
from compress.models.inputs.random_weights import ByteTokenizer, build_random
from tests.compress.models.material import BACKBONES, TOKENIZER, inputs_of, moving_frames, sharp_model, video_meta


def test_resizing_is_pillows() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = moving_frames(size=(90, 120))
    ours = resize(torch.from_numpy(frames).permute(0, 3, 1, 2), (56, 70)).permute(0, 2, 3, 1).numpy()
    for frame, mine in zip(frames, ours, strict=True):
        theirs = np.asarray(image.fromarray(frame).resize((70, 56), image.Resampling.BICUBIC))
        # Pillow rounds between its two passes where torch keeps more bits
        assert np.abs(theirs.astype(int) - mine).max() <= 1
        rounded = torch.nn.functional.interpolate(
            torch.from_numpy(frame).permute(2, 0, 1)[None].float(), size=(56, 70), mode="bicubic"
        )
        wrong = rounded[0].permute(1, 2, 0).round().clamp(0, 255).numpy()
        assert np.abs(theirs.astype(int) - wrong).max() > 10


def test_square_pixels() -> None:
    frames = np.full((2, 30, 40, 3), 255, np.uint8)
    frames[1] = 0
    pixels = square_pixels(frames, 28, PixelSettings())
    assert pixels.shape == (2, 3, 28, 28)
    assert torch.equal(pixels[0], torch.ones(3, 28, 28)) and torch.equal(pixels[1], -torch.ones(3, 28, 28))
    for wrong in (frames.astype(np.float32), frames[0], frames[:0]):
        with pytest.raises(ShapeError, match="uint8"):
            square_pixels(wrong, 28, PixelSettings())


def test_patch_pixels_by_hand() -> None:
    """Every pixel is where the order of tokens, patches within tokens, channels, frames, rows and columns puts it."""
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    settings = PixelSettings(mean=CLIP_MEAN, std=CLIP_STD, min_pixels=1, max_pixels=10**6)
    rows, grid = patch_pixels(frames, patch=4, temporal=2, merge=2, settings=settings)
    assert grid.tolist() == [[2, 4, 6]] and rows.shape == (48, 3 * 2 * 16)
    padded = np.concatenate((frames, frames[-1:]))
    number = 0
    for t in range(2):
        for token_row in range(2):
            for token_col in range(3):
                for i in range(2):
                    for j in range(2):
                        top, left = (token_row * 2 + i) * 4, (token_col * 2 + j) * 4
                        block = padded[2 * t : 2 * t + 2, top : top + 4, left : left + 4].astype(np.float64) / 255
                        block = (block - CLIP_MEAN) / CLIP_STD
                        expected = block.transpose(3, 0, 1, 2).ravel()
                        np.testing.assert_allclose(rows[number].numpy(), expected, rtol=0, atol=1e-6)
                        number += 1


def test_patch_pixels_equal_the_published_image_processor() -> None:
    pytest.importorskip("PIL")
    from transformers import Qwen2VLImageProcessor

    frame = moving_frames(size=(100, 150))[0]
    processor = Qwen2VLImageProcessor(size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 768})
    theirs = processor(images=[frame], return_tensors="pt")
    settings = PixelSettings(mean=CLIP_MEAN, std=CLIP_STD, min_pixels=56 * 56, max_pixels=28 * 28 * 768)
    rows, grid = patch_pixels(frame[None].repeat(2, 0), patch=14, temporal=2, merge=2, settings=settings)
    assert grid.tolist() == theirs["image_grid_thw"].tolist()
    # One grey level apart where Pillow, which it resizes with, rounds otherwise.
    assert (rows - theirs["pixel_values"]).abs().max() < 1.01 / 255 / min(CLIP_STD)
    assert (rows.flip(0) - theirs["pixel_values"]).abs().max() > 0.5


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((100, 150), (1, 10**7), (112, 140)),
        ((1000, 1500), (1, 28 * 28 * 100), (224, 336)),
        ((20, 30), (28 * 28 * 16, 10**7), (112, 140)),
        ((5, 5), (1, 10**7), (28, 28)),
    ],
)
def test_fit_size(size: tuple[int, int], bounds: tuple[int, int], expected: tuple[int, int]) -> None:
    fitted = fit_size(*size, factor=28, min_pixels=bounds[0], max_pixels=bounds[1])
    assert fitted == expected
    assert fitted[0] * fitted[1] <= bounds[1] and fitted[0] * fitted[1] >= bounds[0]


def test_fit_size_refuses_slivers() -> None:
    with pytest.raises(ShapeError, match="narrow"):
        fit_size(10, 3000, factor=28, min_pixels=1, max_pixels=10**6)


def test_settings_come_from_the_checkpoint(tmp_path: Path) -> None:
    assert PixelSettings().from_checkpoint(str(tmp_path)) == PixelSettings()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
    settings = PixelSettings().from_checkpoint(str(tmp_path))
    assert settings.mean == (0.1, 0.2, 0.3) and settings.std == (0.5, 0.5, 0.5)
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps({"image_std": [1, 2, 3]}))
    assert PixelSettings().from_checkpoint(str(tmp_path)).std == (1, 2, 3)
    (tmp_path / "video_preprocessor_config.json").write_text('{"image_std": 4}')
    with pytest.raises(ConfigError, match="video_preprocessor_config"):
        PixelSettings().from_checkpoint(str(tmp_path))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_placeholders_are_as_many_as_features(backbone: str) -> None:
    model = sharp_model(backbone)
    for frames, size in ((1, (48, 64)), (3, (64, 48)), (4, (50, 70))):
        inputs = prepare(model, moving_frames(frames=frames, size=size), "Hm?", tokenizer=TOKENIZER)
        grid = [inputs["video_grid_thw"]] if "video_grid_thw" in inputs else []
        with torch.no_grad():
            features = model.model.get_video_features(inputs["pixel_values_videos"], *grid).pooler_output
        count = sum(len(one) for one in features) if isinstance(features, tuple | list) else features.shape[1]
        placeholders = int((inputs["input_ids"] == model.config.video_token_id).sum())
        if backbone.startswith("llava"):
            # Older versions add the closing newline later.
            assert placeholders - count in (0, 1)
        else:
            assert placeholders == count
            kinds = inputs["mm_token_type_ids"]
            assert ((kinds == 2) == (inputs["input_ids"] == model.config.video_token_id)).all()
        model.generate(**inputs, max_new_tokens=1)


def test_published_prompts() -> None:
    clip = take_clip(video_meta())
    assert clip.seconds.tolist() == [0, 0.5, 1, 1.5] and clip.duration == 2

    def written(backbone: str) -> str:
        pieces = adapt(sharp_model(backbone)).write_prompt("Why?", clip)
        return "".join("<video>" if piece is None else piece for piece in pieces)

    assert written("llava-onevision-tiny") == "<|im_start|>user <video>\nWhy?<|im_end|><|im_start|>assistant\n"
    video = written("llava-video-tiny")
    assert "The video lasts for 2.00 seconds, and 4 frames" in video and "0.00s,0.50s,1.00s,1.50s" in video
    assert (
        written("qwen2-vl-tiny")
        == written("qwen2.5-vl-tiny")
        == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            "<|vision_start|><video><|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n"
        )
    )
    assert written("qwen3-vl-tiny") == (
        "<|im_start|>user\n<0.2 seconds><|vision_start|><video><|vision_end|>"
        "<1.2 seconds><|vision_start|><video><|vision_end|>Why?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_seconds_scale_positions_of_qwen25() -> None:
    model = sharp_model("qwen2.5-vl-tiny")
    inputs = inputs_of(model, video_meta())
    assert inputs["second_per_grid_ts"].tolist() == [1.0]


def test_a_video_file(data: Path) -> None:
    model = build_random(BACKBONES[0])
    inputs = prepare(model, data / "still_h264.mp4", "Hm?", tokenizer=TOKENIZER, frames="uniform:3")
    assert inputs["pixel_values_videos"].shape == (1, 3, 3, 72, 72)


def test_metadata_without_frames() -> None:
    meta = video_meta()
    bare = type(meta)(**{**vars(meta), "frames": None})
    with pytest.raises(SignalError, match=r"codecmeta extract PATH/square0\.mp4 --out META --pixels 384"):
        take_clip(bare)


def test_batches() -> None:
    model = sharp_model(BACKBONES[0])
    short, long = inputs_of(model, video_meta(0), "Hm?"), inputs_of(model, video_meta(1), "What is it that moves?")
    batch = pad_batch([short, long], pad_id=3)
    gap = long["input_ids"].shape[1] - short["input_ids"].shape[1]
    assert batch["input_ids"][0, :gap].tolist() == [3] * gap
    assert torch.equal(batch["input_ids"][0, gap:], short["input_ids"][0])
    assert batch["attention_mask"][0].tolist() == [0] * gap + [1] * short["input_ids"].shape[1]
    with pytest.raises(ConfigError, match="at least one"):
        pad_batch([])
    with pytest.raises(ShapeError, match="equal length"):
        pad_batch([short, inputs_of(model, video_meta(frames=3))])


def test_byte_tokenizer() -> None:
    tokenizer = ByteTokenizer()
    text = "<|im_start|>é and <|vision_end|>"
    ids = tokenizer.encode(text)
    assert ids[0] == 2 and ids[-1] == 5 and tokenizer.decode(ids) == "é and "


def test_checkpoint_in_the_layout_of_llava_next(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from compress.models.inputs.checkpoint import load_llava_next, load_model

    model: Any = build_random("llava-video-tiny", seed=4)
    vision = {**model.config.vision_config.to_dict()}
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size")
    text = model.config.text_config
    fields = {
        "model_type": "llava_qwen",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "vision_config": {name: vision[name] for name in names},
        "rope_theta": 1000000.0,
        "vocab_size": text.vocab_size,
        **{
            name: getattr(text, name)
            for name in (
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
            )
        },
    }
    weights = {}
    for name, tensor in model.state_dict().items():
        original = (
            name.replace("model.language_model.", "model.")
            .replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
            .replace("model.multi_modal_projector.linear_1.", "model.mm_projector.0.")
            .replace("model.multi_modal_projector.linear_2.", "model.mm_projector.2.")
        )
        weights[original] = tensor.contiguous()
    tower = "model.vision_tower.vision_tower.vision_model."
    weights[f"{tower}encoder.layers.2.mlp.fc1.bias"] = torch.zeros(3)
    weights[f"{tower}head.probe"] = torch.zeros(3)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    save_file(weights, tmp_path / "model.safetensors")
    loaded = load_model(str(tmp_path), dtype=torch.float32)
    assert type(loaded).__name__ == "LlavaVideoForConditionalGeneration"
    assert all(torch.equal(loaded.state_dict()[name], weight) for name, weight in model.state_dict().items())
    inputs = inputs_of(model, video_meta())
    # The id of the placeholder is another one, at the end of the vocabulary.
    inputs["input_ids"][inputs["input_ids"] == 7] = loaded.config.video_token_id
    plain = {**inputs, "input_ids": inputs["input_ids"].clone()}
    plain["input_ids"][plain["input_ids"] == loaded.config.video_token_id] = 7
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**plain).logits)
    del weights["model.image_newline"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="image_newline"):
        load_llava_next(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**fields, "mm_projector_type": "linear"}))
    with pytest.raises(ConfigError, match="mlp2x_gelu"):
        load_llava_next(tmp_path)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_placeholders_in_text_are_refused(backbone: str) -> None:
    """LLaVA-Video's ids lie outside its own tokenizer's words, but inside those of newer ones."""

    class Spelling(ByteTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
            ids = super().encode(text)
            return [7 if one == ord("@") + self.offset else one for one in ids]

    model = sharp_model(backbone)
    assert prepare(model, video_meta(), "Who?", tokenizer=Spelling())["input_ids"].shape[0] == 1
    with pytest.raises(ConfigError, match="id 7, which stands for pictures"):
        prepare(model, video_meta(), "Who @ home?", tokenizer=Spelling())
