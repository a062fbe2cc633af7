"""Vision encoder of a session: patches merge before it, and what it shows accompanies its features."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import Tensor

from compress.errors import SignalError
from compress.models.adapters.adapter import Adapter, VideoGrid, VisionTap
from compress.models.adapters.attached import Attached, Method, replace_method
from compress.models.origin import origins_of
from compress.models.session.assignment import assign_metas
from compress.models.session.call import Calls
from compress.models.session.encoding import EncodedVideo, tag
from compress.models.session.prefix import prefix_of
from compress.models.session.videos import VideoCompressor
from compress.stage import Compression


class SessionEncoder(Attached):
    """Wrapper of ``core.get_video_features``, by which models and users encode videos."""

    def __init__(
        self,
        adapter: Adapter,
        videos: VideoCompressor,
        calls: Calls,
        session: weakref.ref[Any],
        stage: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._adapter = adapter
        self._videos = videos
        self._calls = calls
        self._session = session
        self._stage = stage

    def install(self, hooks: ExitStack, tap: VisionTap) -> None:
        """Install the wrapper."""

        def make(original: Method) -> Method:
            parameters = inspect.signature(original)

            def encode(*args: Any, **kwargs: Any) -> Any:
                given = parameters.bind(*args, **kwargs).arguments
                pixels, *_ = given.values()
                grids = self._adapter.video_grids(pixels, given)
                patches, entries, plan = self._plan(grids, pixels)
                tap.begin(grids, plan)
                views = []
                try:
                    output = original(*args, **kwargs)
                finally:
                    views = tap.end()
                videos = [
                    EncodedVideo(session=self._session, grid=grid, view=view, patches=one, entry=entry, origin=origin)
                    for grid, view, one, entry, origin in zip(
                        grids, views, patches, entries, origins_of(pixels, len(grids)), strict=True
                    )
                ]
                tag(output, videos)
                calls = self._calls
                if calls.current is not None:
                    calls.current.videos = videos
                elif calls.generation is not None:
                    calls.generation.videos = videos
                return output

            return encode

        replace_method(hooks, self._adapter.core, "get_video_features", make)

    def _plan(
        self, grids: Sequence[VideoGrid], pixels: Tensor
    ) -> tuple[Sequence[Compression | None], Sequence[int | None], Any]:
        """Plan what to merge of each video's patches, by whose metadata, and as one plan."""
        nothing: list[None] = [None] * len(grids)
        if not self._videos.merges_patches:
            return nothing, nothing, None
        if self._videos.reuses_patches:
            with self._stage("rpm"):
                runs, plan = self._videos.plan_reuse(self._adapter.cut_patches(pixels, grids))
            return runs, nothing, plan
        with self._stage("rpm"):
            entries = self._entries(grids)
            patches, plan = self._videos.plan_patches(grids, entries)
        return patches, entries, plan

    def _entries(self, grids: Sequence[VideoGrid]) -> list[int]:
        """Assign metadata to each video, before or while its prompt is read."""
        count, entries = len(grids), self._videos.entries
        ids, inputs, seen = self._prompt()
        if entries == 1 or (count == entries and not any(seen)):
            return [0] * count if entries == 1 else list(range(count))
        rows = None if ids is None else [video.row for video in self._adapter.locate(ids, grids, inputs)]
        if rows is None or len(rows) != count:
            raise SignalError(
                f"the encoder is given {count} videos, the metadata describes {entries}, and patches merge before it "
                "is known which is which; give one metadata per video, or encode the videos with their prompt"
            )
        return assign_metas(rows, entries, seen=seen or [0] * len(ids if ids is not None else ()))

    def _prompt(self) -> tuple[Tensor | None, Mapping[str, Any], Sequence[int]]:
        """Return the prompt that the videos are encoded for, as far as known, and the videos before it per row."""
        call, generation = self._calls.current, self._calls.generation
        if call is not None:
            prefix = prefix_of(call.cache, self._session())
            return call.ids, call.inputs, [] if prefix is None else prefix.seen
        if generation is not None:
            return generation.ids, generation.inputs, generation.seen
        return None, {}, []
