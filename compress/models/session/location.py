"""Location of the videos of a prompt: in rows, in repeated rows, and in the chunks of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.errors import ConfigError, ShapeError, SignalError
from compress.models.adapters.adapter import Adapter, VideoTokens, spread_rows
from compress.models.session.assignment import assign_metas
from compress.models.session.call import Call, Generation
from compress.models.session.encoding import EncodedVideo, videos_of
from compress.models.session.prefix import Prefix


@dataclass(frozen=True, kw_only=True, eq=False)
class Located:
    """The videos of a prompt.

    Attributes:
        videos: where each lies.
        encoded: what the encoder showed of each; None where that is not known.
        first: how many videos of its `generate` lie before the first of each row; 0 without chunks.
    """

    videos: list[VideoTokens]
    encoded: list[EncodedVideo] | None
    first: int = 0


def locate_videos(
    adapter: Adapter, call: Call, ids: Tensor, prefix: Prefix | None, past: int, session: object, *, needs: str
) -> Located:
    """Locate the videos of a prompt, with what the encoder showed of them.

    Args:
        adapter: of the model.
        call: the forward pass.
        ids: int64 (B, S), what it feeds.
        prefix: what lies in the cache; None for nothing.
        past: columns of that.
        session: the session.
        needs: what the method needs that only the encoder shows; empty for nothing.

    Raises:
        ConfigError: a chunk of the prompt ends inside a video.
        SignalError: the method needs signals that features from elsewhere do not have.
        ShapeError: the placeholders are not those of the videos.
    """
    known = call.videos or videos_of(call.features, session) if call.has_videos else None
    generation = call.generation
    if known is None and call.features is not None and generation is not None and generation.videos:
        return _locate_chunk(adapter, generation, ids, prefix, past)
    if known is None and call.features is not None and needs:
        raise SignalError(
            "the features of these videos were not encoded inside this `with` block, so that nothing is known of "
            f"their {needs}; encode them inside it by core.get_video_features and pass its output on as it is, or pass "
            "pixel_values_videos" + (", or attach with saliency='none'" if needs == "saliency" else "")
        )
    videos = adapter.locate(ids, [one.grid for one in known or ()], call.inputs)
    if videos and not call.has_videos:
        raise ShapeError("the prompt has video placeholders but no video; pass pixel_values_videos")
    encoded = _encoded([video.row for video in videos], known)
    if videos and known is not None and encoded is None:
        raise ShapeError(
            f"the prompt has {len(videos)} videos, but the features that come with it are of {len(known)}; pass the "
            "features of its videos, as core.get_video_features returned them"
        )
    return Located(videos=videos, encoded=encoded)


def _encoded(rows: Sequence[int], known: Sequence[EncodedVideo] | None) -> list[EncodedVideo] | None:
    """Return the encoded video of each located one."""
    entries = None if known is None else spread_rows(rows, len(known))
    return None if entries is None or known is None else [known[entry] for entry in entries]


def _locate_chunk(adapter: Adapter, generation: Generation, ids: Tensor, prefix: Prefix | None, past: int) -> Located:
    """Locate the videos in a chunk of a prompt, whose features come without what was known of them."""
    known = generation.videos or []
    assert generation.ids is not None  # its videos were found by it
    rows, width = ids.shape
    whole = generation.ids.repeat_interleave(rows // len(generation.ids), dim=0)
    fed = 0 if prefix is None else prefix.fed(past).shape[1]
    starts = [start for start in (fed, fed - generation.fed) if 0 <= start <= whole.shape[1] - width]
    start = next((one for one in starts if torch.equal(whole[:, one : one + width], ids)), None)
    if start is None:
        raise ConfigError(
            "features of videos were passed without the output of core.get_video_features that held them, so that "
            "nothing is known of these videos; pass that output on as it is"
        )
    found = adapter.locate(whole, [one.grid for one in known], generation.inputs)
    encoded = _encoded([video.row for video in found], known)
    inside = [number for number, video in enumerate(found) if start <= video.begin and video.stop <= start + width]
    for number, video in enumerate(found):
        if number not in inside and video.begin < start + width and start < video.stop:
            raise ConfigError(
                f"a chunk of the prompt ends inside a video: it has columns {start} to {start + width}, the video "
                f"{video.begin} to {video.stop}, and a video merges as a whole; choose a prefill_chunk_size of which a "
                "multiple lies before the video and the next one after it, or None"
            )
    earlier = sum(video.row == 0 and video.stop <= start for video in found)
    return Located(
        videos=[_shifted(found[number], start) for number in inside],
        encoded=None if encoded is None else [encoded[number] for number in inside],
        first=earlier,
    )


def _shifted(video: VideoTokens, by: int) -> VideoTokens:
    """Return the same video, counted from a later column."""
    return replace(
        video,
        index=video.index - by,
        begin=video.begin - by,
        stop=video.stop - by,
        newlines=None if video.newlines is None else video.newlines - by,
        start=None if video.start is None else video.start - by,
    )


def assign_located(
    videos: Sequence[VideoTokens], entries: int, call: Call, prefix: Prefix | None, rows: int
) -> list[int] | None:
    """Assign metadata to each located video; None without metadata.

    Args:
        videos: of the prompt.
        entries: metadata that was given.
        call: the forward pass.
        prefix: what lies in the cache.
        rows: of the batch, with those that beams repeat.

    Raises:
        ShapeError: the numbers do not match.
    """
    if not entries or not videos:
        return None if not entries else []
    generation = call.generation
    repeats = rows // generation.rows if generation is not None and generation.rows else 1
    seen = [0] * rows if prefix is None else prefix.seen
    first = [video.row // repeats for video in videos if video.row % repeats == 0]
    assigned = assign_metas(first, entries, seen=seen[::repeats])
    if repeats == 1:
        return assigned
    places = spread_rows([video.row for video in videos], len(first)) or []
    return [assigned[place] for place in places]
