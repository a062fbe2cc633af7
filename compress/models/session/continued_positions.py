"""Position ids of a turn with a video after what a cache holds: as in one prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from compress.models.adapters.adapter import Adapter, count_places
from compress.models.session.call import Call
from compress.models.session.prefix import Prefix
from compress.models.session.shortening import Prompt


def place_turn(prompt: Prompt, adapter: Adapter, call: Call, prefix: Prefix, *, first: int) -> Prompt:
    """Give the prompt the position ids that it has after what the cache holds.

    Those that are given count from the length of a shortened cache, or along one axis only.

    Args:
        prompt: the later turn.
        adapter: of the model.
        call: the forward pass.
        prefix: what the cache holds.
        first: videos of the same `generate` that were read before.
    """
    mask, device = prompt.mask, prefix.following.device
    inputs: dict[str, Any] = {**(call.generation.inputs if call.generation is not None else {}), **call.inputs}
    seconds = inputs.get("second_per_grid_ts")
    if seconds is not None:
        inputs["second_per_grid_ts"] = torch.as_tensor(seconds)[first : first + len(prompt.videos)]
    grids = [(video.frames, *video.patches) for video in prompt.videos]
    relative = adapter.relative_positions(prompt.ids, grids, inputs, mask).to(device)
    start = prefix.next_start(prompt.past)
    if relative.dim() == 2:
        return replace(prompt, positions=start[..., None] + relative)
    if start.dim() == 1:
        start = start.expand(3, -1)
    text = count_places(prompt.ids, mask).to(device).expand(len(start) - 3, -1, -1)
    return replace(prompt, positions=start[..., None] + torch.cat((text, relative)))
