"""Damage to packets, and what a reader makes of them."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from codecmeta import h264, hevc
from codecmeta.entropy.nal import split_units
from codecmeta.errors import BitstreamError
from tests.codecmeta.h264.streams import extradata, packets

CLIPS = Path(__file__).resolve().parents[1] / "data"
Codec = Literal["h264", "hevc"]

LIMIT_S = 1.0


@dataclass
class Corpus:
    """Packets to mutate, each with the extradata it needs."""

    entries: list[tuple[bytes, bytes]] = field(default_factory=list)
    extradata: list[bytes] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        corpus = cls()
        for path in sorted(folder.iterdir()):
            if path.suffix in {".mp4", ".mkv", ".ts", ".h264", ".hevc"}:
                extra = extradata(path)
                corpus.extradata.append(extra)
                corpus.entries += [(extra, packet) for packet in packets(path)]
        return corpus


def mutate(corpus: Corpus, rng: random.Random) -> tuple[bytes, bytes]:
    """Return a packet and extradata with one to three kinds of damage, mostly inside one NAL unit."""
    extra, packet = rng.choice(corpus.entries)
    if rng.random() < 0.1:
        data = bytearray(packet)
        for _ in range(rng.randint(1, 3)):
            extra = damage(data, extra, corpus, rng)
        return extra, bytes(data)
    length_size = 4 if extra[:1] == b"\1" else 0
    units = [bytearray(unit) for unit in split_units(packet, length_size)]
    for _ in range(rng.randint(1, 3)):
        extra = damage(units[-1 if rng.random() < 0.9 else 0], extra, corpus, rng)
    if length_size:
        return extra, b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)
    return extra, b"".join(b"\0\0\1" + unit for unit in units)


def damage(data: bytearray, extra: bytes, corpus: Corpus, rng: random.Random) -> bytes:
    """Change `data` in place; return the extradata to go with it."""
    kind = rng.randrange(9)
    place = rng.randrange(max(len(data), 1))
    if kind == 0:
        for _ in range(rng.randint(1, 16)):
            flip(data, rng)
    elif kind == 1:
        del data[place : place + rng.randint(1, 64)]
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        other = rng.choice(corpus.entries)[1]
        data[place:] = other[rng.randrange(max(len(other), 1)) :]
    elif kind == 4:
        return rng.choice(corpus.extradata)
    elif kind == 5:
        damaged = bytearray(extra)
        for _ in range(rng.randint(1, 4)):
            flip(damaged, rng)
        return bytes(damaged)
    elif kind == 6:
        data[place : place + rng.randint(1, 32)] = bytes([rng.choice((0, 255))]) * rng.randint(1, 32)
    elif kind == 7:
        # slice headers
        for _ in range(rng.randint(1, 3)):
            flip(data, rng, 160)
    else:
        # one late bit: most of the picture is read before it matters
        flip(data, rng)
    return extra


def flip(data: bytearray, rng: random.Random, bits: int | None = None) -> None:
    """Flip one bit among the first `bits`, anywhere by default."""
    if data:
        bit = rng.randrange(min(bits or len(data) * 8, len(data) * 8))
        data[bit >> 3] ^= 1 << (bit & 7)


def run(codec: Codec, count: int, seed: int, save: Path | None) -> dict[str, object]:
    """Read `count` mutated packets of a codec's clips and count what happened."""
    corpus = Corpus.load(CLIPS / codec)
    rng = random.Random(seed)
    open_reader = hevc.ResidualReader if codec == "hevc" else h264.ResidualReader
    # the first packet of every clip: what is compiled on first use does not count as slow
    for extra, packet in dict(reversed(corpus.entries)).items():
        open_reader(extra).measure(packet, block=8)
        open_reader(extra).read(packet)
    outcomes: Counter[str] = Counter()
    failures = []
    slowest = 0.0
    for number in range(count):
        extra, packet = mutate(corpus, rng)
        start = time.process_time()
        try:
            reader = open_reader(extra)
            if rng.random() < 0.5:
                reader.read(packet)
            else:
                reader.measure(packet, block=rng.choice((4, 8)))
            outcomes["read"] += 1
        except BitstreamError:
            outcomes["refused"] += 1
        except Exception:
            outcomes["failed"] += 1
            failures.append(f"packet {number}: {traceback.format_exc()}")
            if save:
                (save / f"{number}.bin").write_bytes(len(extra).to_bytes(4, "big") + extra + packet)
        seconds = time.process_time() - start
        slowest = max(slowest, seconds)
        outcomes["slow"] += seconds > LIMIT_S
    return {
        "packets": count,
        "seed": seed,
        "boundscheck": os.environ.get("NUMBA_BOUNDSCHECK") == "1",
        "outcomes": dict(outcomes),
        "slowest_s": round(slowest, 3),
        "failures": failures[:5],
    }


def main(codec: Codec, about: str) -> int:
    """Command line of a harness."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--packets", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="folder for packets that failed")
    options = parser.parse_args()
    report = run(codec, options.packets, options.seed, options.save)
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    outcomes = report["outcomes"]
    assert isinstance(outcomes, dict)
    return int(bool(outcomes.get("failed") or outcomes.get("slow")))
