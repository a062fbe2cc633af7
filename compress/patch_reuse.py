"""PatchReuse: the vision encoder computes the patches that change, and reuses what it computed of those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.attach import Attachable
from compress.errors import ConfigError, ShapeError
from compress.plan import MergePlan
from compress.planning_mode import planned
from compress.stage import Compression


@dataclass(frozen=True, kw_only=True)
class PatchReuse(Attachable):
    """Reuse of static patches inside the vision encoder: only patches that change go through its blocks.

    A patch is static while it differs from that of its anchor, the frame in which its place was computed last, by at
    most ``tau``: the root of the mean square over its pixels. Anchors go through the blocks, static patches do not.
    Every frame still attends to all of its patches: keys and values of the static ones are those of their anchors, in
    every block. After the encoder a static patch has its anchor's features, so that methods before the language model
    get as many tokens as ever, at their places.

    Other than `RPM` it merges in time and never in space, and reads the pixels that the encoder is given: the packet of
    a sampled picture says what changes since the picture before it, not since the last one that was sampled.

    Attributes:
        tau: largest difference of a static patch, in levels of 255, at least 0. 0 reuses what is equal, infinity
            computes the first frame only.

    Raises:
        ConfigError: a field is outside its range.
    """

    tau: float = 4.0
    reuses_patches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.tau >= 0:
            raise ConfigError(f"tau is {self.tau}; it is a difference in levels of 255, at least 0")

    @planned
    def before_encoder(self, patches: Tensor) -> Compression:
        """Find the static patches of a video.

        Args:
            patches: (T, rows, cols, P), pixels of each patch in levels of 255, from any zero, any float dtype.

        Returns:
            A plan over T * rows * cols patches: its rows are runs, ``plan.keep`` their anchors, which alone are
            encoded; ``plan.broadcast`` gives every patch its anchor's token after the encoder.

        Raises:
            ShapeError: patches do not have four dimensions, or are empty.
        """
        if patches.dim() != 4 or not patches.is_floating_point() or not patches.numel():
            raise ShapeError(
                f"patches have shape {tuple(patches.shape)} and dtype {patches.dtype}; "
                "allowed is floating point (T, rows, cols, P), not empty"
            )
        frames = len(patches)
        anchor = find_anchors(patches.flatten(1, 2), self.tau)
        places = anchor.shape[1]
        plan = MergePlan.from_anchors((anchor * places + np.arange(places)).ravel())
        return Compression(
            method="reuse",
            plan=plan,
            frames=frames,
            nominal=plan.count_out,
            kind=(plan.sizes > 1).to(torch.uint8),
            kinds=("patch", "static"),
        )


def find_anchors(patches: Tensor, tau: float) -> NDArray[np.int64]:
    """Find the frame in which each patch is computed; costs one synchronisation.

    Args:
        patches: (T, N, P), any float dtype. Pixels that are not finite count as changed.
        tau: largest difference of a static patch from its anchor.

    Returns:
        int64 (T, N), at most the patch's own frame.
    """
    held = patches[0].float()
    changed = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
    for frame in range(1, len(patches)):
        new = patches[frame].float()
        changed[frame] = ~((new - held).square().mean(dim=1) <= tau**2)
        held = torch.where(changed[frame, :, None], new, held)
    number = np.arange(len(patches))[:, None]
    return np.maximum.accumulate(np.where(changed.cpu().numpy(), number, 0), axis=0)
