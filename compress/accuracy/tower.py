"""Outputs of the vision tower for a clip, computed once and returned to the model as often as it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from compress.errors import ConfigError
from compress.models.adapters.adapter import Adapter, VideoGrid, VisionRequest, VisionTap, VisionView
from compress.models.session.session import Session
from compress.plan import MergePlan
from compress.stage import InsideEncoder


@dataclass(frozen=True, kw_only=True, eq=False)
class TowerOutput:
    """A clip after tower, projector and pooling.

    Attributes:
        features: (1, T * N + 1, D), the tokens in order and the newline.
        view: what it showed: the saliency, attention received in the tower, and what merged inside it.
        patches: share of the patches that the tower saw.
    """

    features: Tensor
    view: VisionView
    patches: float = 1.0

    @property
    def saliency(self) -> Tensor:
        """(T, N), attention received in the tower."""
        assert self.view.saliency is not None  # always requested
        return self.view.saliency


class TowerMemory:
    """The tower's outputs for one clip, by the plan that merged its patches.

    Attributes:
        pixels: (1, T, 3, height, width), what the model takes.
    """

    def __init__(self, adapter: Adapter, pixels: Tensor) -> None:
        self.pixels = pixels
        self._adapter = adapter
        self._outputs: dict[tuple[tuple[bytes, ...] | None, bool], TowerOutput] = {}

    @property
    def frames(self) -> int:
        """T."""
        return self.pixels.shape[1]

    def recall(self, plan: MergePlan | None = None, *, reuses: bool = False) -> TowerOutput:
        """Return the output with patches merged by a plan; the tower runs on the first request.

        Args:
            plan: over all patches; None merges nothing.
            reuses: see `VisionRequest`.
        """
        key = None if plan is None else tuple(one.cpu().numpy().tobytes() for one in (plan.keep, plan.crow, plan.col))
        if (key, reuses) not in self._outputs:
            self._outputs[key, reuses] = self._run(plan, reuses=reuses)
        return self._outputs[key, reuses]

    def merge(self, inside: InsideEncoder) -> TowerOutput:
        """Return the output of a tower in which a method merges; nothing is kept of it."""
        return self._run(None, inside)

    @torch.inference_mode()
    def _run(self, plan: MergePlan | None, inside: InsideEncoder | None = None, *, reuses: bool = False) -> TowerOutput:
        request = VisionRequest(merges=plan is not None, saliency=True, head=None, inside=inside, reuses=reuses)
        core: Any = self._adapter.core
        with ExitStack() as hooks:
            tap = self._adapter.install(hooks, request)
            tap.begin(self._adapter.video_grids(self.pixels, {}), plan)
            # The method of the class: this runs while the model's own is replaced.
            output = type(core).get_video_features(core, self.pixels, return_dict=True)
            (view,) = tap.end()
        return TowerOutput(features=output.pooler_output, view=view, patches=1.0 if plan is None else plan.retention)


class RecordedAdapter:
    """An adapter whose model sees a `TowerMemory` in place of its tower; all else is as before.

    Args:
        adapter: of the model.
        memory: of the clip that is going to be asked about.
        alter: applied to what the memory recalls, for controls.
    """

    def __init__(
        self, adapter: Adapter, memory: TowerMemory, alter: Callable[[TowerOutput], TowerOutput] | None = None
    ) -> None:
        self._adapter = adapter
        self._memory = memory
        self._alter = alter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def video_grids(self, pixels: Tensor, inputs: Mapping[str, Any]) -> list[VideoGrid]:
        """Return the grid of the only video, however many rows show it."""
        return [(self._memory.frames, *self.patch_grid)]

    def install(self, hooks: ExitStack, request: VisionRequest) -> VisionTap:
        """Put the memory in place of ``core.get_video_features``; leaving the stack takes it away.

        Raises:
            ConfigError: a pooling head is asked for, which is not recorded.
        """
        if request.head is not None:
            raise ConfigError("the recorded tower has no pooling head; run the model itself with one")
        memory, core = self._memory, self.core
        tap = _RecordedTap()

        def recall(pixel_values_videos: Tensor, **options: Any) -> BaseModelOutputWithPooling:
            if request.inside is None:
                output = memory.recall(tap.plan, reuses=request.reuses)
            else:
                output = memory.merge(request.inside)
            output = output if self._alter is None else self._alter(output)
            tap.view = output.view if request.saliency else replace(output.view, saliency=None)
            rows = pixel_values_videos.shape[0]
            return BaseModelOutputWithPooling(pooler_output=output.features.expand(rows, -1, -1))

        core.get_video_features = recall
        hooks.callback(delattr, core, "get_video_features")
        return tap


class _RecordedTap:
    """See `compress.models.adapters.adapter.VisionTap`."""

    def __init__(self) -> None:
        self.plan: MergePlan | None = None
        self.view = VisionView()

    def begin(self, grids: Sequence[VideoGrid], plan: MergePlan | None) -> None:
        """Set the plan, which is that of the only video."""
        self.plan = plan

    def end(self) -> list[VisionView]:
        """Return what was recorded of it."""
        view, self.plan, self.view = self.view, None, VisionView()
        return [view]


@contextmanager
def plain_model(
    adapter: Adapter, memory: TowerMemory, alter: Callable[[TowerOutput], TowerOutput] | None = None
) -> Iterator[None]:
    """Replace the tower of the model without a compressor by a memory."""
    request = VisionRequest(merges=False, saliency=False, head=None)
    with ExitStack() as hooks:
        RecordedAdapter(adapter, memory, alter).install(hooks, request)
        yield


def with_memory(session: Session, memory: TowerMemory) -> Session:
    """Replace the tower of a session, not entered yet, by a memory."""
    session.adapter = RecordedAdapter(session.adapter, memory)
    return session
