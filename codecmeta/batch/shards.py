"""Shards of a batch: which of several machines takes which video, without communication between them."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass

from codecmeta.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Part of the inputs, one of `count`.

    The part is the CRC-32 of the video's place below the output folder, modulo `count`: independent of the order, the
    machine and the number of listings, and of which other videos come or go.

    Attributes:
        index: from 0.
        count: of parts.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self.index}/{self.count}; allowed are i/n with i from 0 to n - 1, such as 0/4 to 3/4"
            )

    def has(self, place: str) -> bool:
        """Return whether the video of a place belongs to this part."""
        return self.count == 1 or zlib.crc32(os.fsencode(place)) % self.count == self.index

    def file_name(self, stem: str, suffix: str) -> str:
        """Return the name of a file of this part: `manifest.jsonl`, `manifest-3-of-16.jsonl`."""
        return f"{stem}{suffix}" if self.count == 1 else f"{stem}-{self.index}-of-{self.count}{suffix}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `i/n`.

    Raises:
        UsageError: it is something else.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    if match is None:
        raise UsageError(f"--shard {text!r}; allowed is i/n with i from 0 to n - 1, such as 0/4")
    return Shard(int(match[1]), int(match[2]))
