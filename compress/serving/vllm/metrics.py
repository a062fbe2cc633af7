"""Metrics of a server that compresses, next to vLLM's own under ``/metrics``: videos, and their tokens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

VIDEOS: Final = "compress:videos"
TOKENS: Final = "compress:video_tokens"
STATES: Final = ("encoded", "kept")
"""Values of the label ``state`` of `TOKENS`: tokens of the encoder, and those that entered the language model."""

_REMEMBERED: Final = 8192
"""Videos whose tokens of the encoder are remembered, for requests that find them in a cache."""


class VideoCounters:
    """Counters of the videos of all requests, also of those whose tokens are in a cache.

    The process that takes requests has one; before the server is ready it counts vLLM's own trial requests.
    """

    def __init__(self) -> None:
        from prometheus_client import REGISTRY, Counter

        known = getattr(REGISTRY, "_names_to_collectors", {})
        self._videos = known.get(VIDEOS) or Counter(VIDEOS, "Videos of requests.")
        self._tokens = known.get(TOKENS) or Counter(TOKENS, "Visual tokens of videos of requests.", ["state"])
        self._encoded: OrderedDict[str, int] = OrderedDict()
        # vLLM may process requests in several threads
        self._lock = threading.Lock()

    def count(self, key: str, *, kept: int, encoded: int | None) -> None:
        """Count a video of a request.

        Args:
            key: vLLM's key of the video and its settings.
            kept: its placeholders.
            encoded: tokens of the encoder; None where the video is in a cache, so that they are those of its key. A
                video in a cache whose key has been forgotten is not counted.
        """
        with self._lock:
            if encoded is None:
                encoded = self._encoded.get(key)
            if encoded is None:
                return
            self._encoded[key] = encoded
            self._encoded.move_to_end(key)
            if len(self._encoded) > _REMEMBERED:
                self._encoded.popitem(last=False)
        self._videos.inc()
        self._tokens.labels(state="encoded").inc(encoded)
        self._tokens.labels(state="kept").inc(kept)


def read_tokens(page: str) -> dict[str, float]:
    """Read the counters of `TOKENS` from a page of metrics, by state; absent ones are 0."""
    found = dict.fromkeys(STATES, 0.0)
    for line in page.splitlines():
        name, _, value = line.rpartition(" ")
        for state in STATES:
            if name.startswith(f"{TOKENS}_total{{") and f'state="{state}"' in name:
                found[state] += float(value)
    return found
