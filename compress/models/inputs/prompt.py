"""Prompts: a video and a question -> the inputs of `generate`, for every supported backbone, without a processor."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.errors import ConfigError, ShapeError, SignalError
from compress.models.adapters.adapter import Adapter, Clip, adapt
from compress.models.adapters.wrappers import input_device, pixel_dtype, unwrap
from compress.models.origin import Origin, keep_origins, origins_of

if TYPE_CHECKING:
    from codecmeta import VideoMeta

PER_POSITION = ("input_ids", "attention_mask", "mm_token_type_ids")
VIDEO_TYPE = 2
"""Kind of a video token for M-RoPE; text is 0 and images are 1."""


class Tokenizer(Protocol):
    """The part of a tokenizer that prompts need; any Hugging Face tokenizer has it."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Return the ids of a text."""
        ...

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = ...) -> str:
        """Return the text of ids."""
        ...


def take_clip(video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str], *, frames: str = "uniform:32") -> Clip:
    """Take frames and times of a video.

    Args:
        video: its metadata with cached frames, a video file, or bare frames, taken at one per second.
        frames: which frames of a file.

    Raises:
        ConfigError: it is none of these.
        SignalError: the metadata has no cached frames.
        CodecMetaError: the file cannot be read.
    """
    if isinstance(video, np.ndarray):
        return Clip(frames=video, seconds=np.arange(len(video), dtype=np.float64), duration=float(len(video)))
    if isinstance(video, str | os.PathLike):
        import codecmeta

        video = codecmeta.extract(video, frames=frames, residual="none")
    if not hasattr(video, "frames"):
        raise ConfigError(
            f"a video is {type(video).__name__}; give its metadata, the path of a file, or frames as a uint8 array"
        )
    if video.frames is None:
        source = video.info["source"]["name"]
        raise SignalError(
            f"the record of {source} has no cached frames; "
            f"run: codecmeta extract PATH/{source} --out META --pixels 384 --overwrite"
        )
    seconds = video.frame_seconds
    duration = video.info["stream"].get("duration_s")
    return Clip(
        frames=video.frames,
        seconds=seconds - seconds[0],
        duration=float(seconds[-1] - seconds[0] if duration is None else duration),
        origin=Origin.of(video),
    )


def prepare(
    model: nn.Module,
    video: VideoMeta | NDArray[np.uint8] | str | os.PathLike[str],
    question: str,
    *,
    tokenizer: Tokenizer,
    frames: str = "uniform:32",
) -> dict[str, Tensor]:
    """Prepare the inputs of ``model.generate`` for one video and one question, in the model's own prompt.

    Args:
        model: a supported model.
        video: see `take_clip`.
        question: what to ask.
        tokenizer: of the checkpoint.
        frames: which frames of a file.

    Returns:
        Tensors on the device that the model takes inputs on, pixels in its dtype.

    Raises:
        ConfigError: the question is no text, or the tokenizer turns text into a placeholder.
    """
    if not isinstance(question, str):
        raise ConfigError(f"the question is {question!r}; give a text")
    model = unwrap(model)
    adapter = adapt(model)
    clip = take_clip(video, frames=frames)
    visual = adapter.encode_pixels(clip)
    ids: list[int] = []
    runs = iter(visual.runs)
    for piece in adapter.write_prompt(question, clip):
        if piece is None:
            ids += [adapter.config.video_token_id] * next(runs)
        else:
            ids += encode_text(adapter, tokenizer, piece)
    input_ids = torch.tensor([ids])
    inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **visual.tensors}
    if adapter.multi_axis:
        inputs["mm_token_type_ids"] = VIDEO_TYPE * (input_ids == adapter.config.video_token_id).int()
    device = input_device(model)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(pixel_dtype(model))
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    keep_origins(inputs["pixel_values_videos"], [clip.origin])
    return inputs


def encode_text(adapter: Adapter, tokenizer: Tokenizer, text: str) -> list[int]:
    """Encode text without placeholders to ids.

    Raises:
        ConfigError: one of the ids stands for a picture or a video, because the text spells such a token, or the
            tokenizer is not this checkpoint's.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    reserved = {adapter.config.video_token_id, adapter.config.image_token_id}
    if found := reserved.intersection(ids):
        raise ConfigError(
            f"the tokenizer turns the text into id {min(found)}, which stands for pictures in this model "
            f"({adapter.config.video_token_id} for a video); leave such tokens out of the question and use the "
            "checkpoint's own tokenizer"
        )
    return ids


def pad_batch(inputs: Sequence[dict[str, Tensor]], *, pad_id: int = 0) -> dict[str, Tensor]:
    """Pad several prompts on the left to form a batch.

    Args:
        inputs: results of `prepare` for one model.
        pad_id: id that fills the gaps; it is masked.

    Raises:
        ConfigError: no prompt is given.
        ShapeError: their pixels do not go together (LLaVA takes equally many frames of every video).
    """
    if not inputs:
        raise ConfigError("the batch has no prompts; give at least one")
    longest = max(one["input_ids"].shape[1] for one in inputs)
    batch: dict[str, Tensor] = {}
    for name in inputs[0]:
        tensors = [one[name] for one in inputs]
        if name in PER_POSITION:
            fill = pad_id if name == "input_ids" else 0
            tensors = [torch.nn.functional.pad(one, (longest - one.shape[1], 0), value=fill) for one in tensors]
        if len({one.shape[1:] for one in tensors}) > 1:
            shapes = [tuple(one.shape) for one in tensors]
            raise ShapeError(f"{name} of these prompts do not form a batch: {shapes}; give videos of equal length")
        batch[name] = torch.cat(tensors)
    if (pixels := batch.get("pixel_values_videos")) is not None:
        keep_origins(pixels, [one for given in inputs for one in origins_of(given["pixel_values_videos"], 1)])
    return batch
