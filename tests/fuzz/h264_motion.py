"""Mutated H.264 packets among whole ones: motion is read or refused with BitstreamError, within a second a packet.

    NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=/tmp/checked python -m tests.fuzz.h264_motion --packets 5000

Run it from the root. With NUMBA_BOUNDSCHECK=1, an index outside a table or buffer raises IndexError and counts as a
failure; the cache directory keeps the checked machine code apart from the usual one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections import Counter

from codecmeta.errors import BitstreamError
from codecmeta.h264.motion import MotionReader
from codecmeta.h264.reader import ResidualReader
from tests.codecmeta.h264.streams import CLIPS, extradata, packets
from tests.fuzz.mutation import LIMIT_S, Corpus, mutate

AROUND = 5
"""Whole packets that are read after a mutated one."""


def read_all(extra: bytes, stream: list[bytes], outcomes: Counter[str]) -> None:
    """Follow and read packet after packet."""
    try:
        reader = ResidualReader(extra, motion=True)
    except BitstreamError:
        outcomes["refused"] += len(stream)
        return
    following = MotionReader(reader)
    for packet in stream:
        try:
            frame = following.follow(packet)
            following.prepare(frame)
            coded = reader.decode(packet)
            following.list_vectors(following.derive(frame, coded), coded)
            outcomes["read"] += 1
        except BitstreamError:
            outcomes["refused"] += 1


def run(count: int, seed: int) -> dict[str, object]:
    """Read `count` mutated packets, each among those of its clip, and count what happened."""
    rng = random.Random(seed)
    clips = [path for path in sorted(CLIPS.iterdir()) if path.suffix in {".mp4", ".mkv", ".h264"}]
    streams = [(extradata(path), packets(path)) for path in clips]
    for extra, stream in streams:
        read_all(extra, stream[:4], Counter())
    outcomes: Counter[str] = Counter()
    failures = []
    slowest, slow = 0.0, 0
    for number in range(count):
        extra, stream = rng.choice(streams)
        at = rng.randrange(len(stream))
        corpus = Corpus(entries=[(extra, stream[at])], extradata=[extra])
        if rng.random() < 0.5:
            extra, packet = mutate(corpus, rng)
        else:
            # the header alone, which decides what is referred to
            data = bytearray(stream[at])
            for _ in range(rng.randint(1, 3)):
                place = rng.randrange(4, min(len(data), 24))
                data[place] ^= 1 << rng.randrange(8)
            packet = bytes(data)
        start = time.process_time()
        try:
            read_all(extra, [*stream[max(at - AROUND, 0) : at], packet, *stream[at + 1 : at + 1 + AROUND]], outcomes)
        except Exception:
            failures.append(f"packet {number}: {traceback.format_exc()}")
        seconds = (time.process_time() - start) / (2 * AROUND + 1)
        slowest = max(slowest, seconds)
        slow += seconds > LIMIT_S
    return {
        "packets": count,
        "seed": seed,
        "boundscheck": os.environ.get("NUMBA_BOUNDSCHECK") == "1",
        "outcomes": dict(outcomes),
        "slowest_s": round(slowest, 3),
        "slow": slow,
        "failed": len(failures),
        "failures": failures[:5],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--packets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = run(options.packets, options.seed)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    return int(bool(report["failed"] or report["slow"]))


if __name__ == "__main__":
    sys.exit(main())
