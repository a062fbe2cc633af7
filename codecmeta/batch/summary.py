"""Summaries of batches: number, codecs, duration and size of videos, and failures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codecmeta.batch.outcome import VERDICTS, Outcome, Status
from codecmeta.batch.shards import Shard

SUMMARIES = "summary*.json"
_MAX_BYTES = 1 << 22


@dataclass(kw_only=True)
class Share:
    """Sums over some videos.

    Attributes:
        videos: number of videos.
        hours: their duration, where it is known.
        source_bytes: size of the videos.
        meta_bytes: size of their records.
    """

    videos: int = 0
    hours: float = 0.0
    source_bytes: int = 0
    meta_bytes: int = 0

    def add(self, duration_s: float | None, source_bytes: int, meta_bytes: int) -> None:
        """Count one more video."""
        self.videos += 1
        self.hours += (duration_s or 0.0) / 3600
        self.source_bytes += source_bytes
        self.meta_bytes += meta_bytes


@dataclass(kw_only=True)
class Tally:
    """Sums over outcomes.

    Attributes:
        counts: videos by status.
        failed: failures by code.
        verdicts: videos with a record, by whether the file is whole.
        warned: number of videos with warnings.
        codecs: videos with a record, by codec.
        residuals: those by source of the residual; `none` without one.
    """

    counts: dict[Status, int] = field(default_factory=lambda: {"done": 0, "kept": 0, "failed": 0})
    failed: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    warned: int = 0
    codecs: dict[str, Share] = field(default_factory=dict)
    residuals: dict[str, Share] = field(default_factory=dict)

    def add_outcome(self, outcome: Outcome) -> None:
        """Count one more video."""
        self.counts[outcome.status] += 1
        self.warned += bool(outcome.warnings)
        if outcome.status == "failed":
            self.failed[outcome.code] += 1
            return
        self.verdicts[outcome.verdict if outcome.verdict in VERDICTS else "unknown"] += 1
        if outcome.stamp is not None:
            sizes = (outcome.duration_s, outcome.stamp.source_bytes, outcome.stamp.meta_bytes)
            self.codecs.setdefault(outcome.codec or "unknown", Share()).add(*sizes)
            self.residuals.setdefault(outcome.residual or "none", Share()).add(*sizes)

    def describe(self) -> dict[str, Any]:
        """Describe the sums as JSON values."""
        return asdict(self) | {"failed": dict(self.failed.most_common())}


def encode_summary(shard: Shard, tally: Tally, facts: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return name and content of `summary.json`, or of that of a shard.

    Args:
        shard: part of the inputs that was done.
        tally: the sums.
        facts: other content of the file, as JSON values.
    """
    text = json.dumps({"shard": str(shard), **facts, **tally.describe()}, indent=1)
    return shard.file_name("summary", ".json"), f"{text}\n".encode()


def read_summaries(folder: Path) -> list[dict[str, Any]]:
    """Read all summaries of a folder that can be read and say how their run ended."""
    found = []
    for path in sorted(folder.glob(SUMMARIES)):
        with suppress(OSError, ValueError, RecursionError):
            with path.open("rb") as file:
                summary = json.loads(file.read(_MAX_BYTES))
            if isinstance(summary, dict) and isinstance(summary.get("ended"), str):
                found.append(summary)
    return found
