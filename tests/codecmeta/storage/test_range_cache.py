"""Ranges that are kept, compared with a plain array of what was added."""

from __future__ import annotations

import random

from codecmeta.storage.range_cache import RangeCache


def test_pieces_are_found_and_gaps_are_those_of_a_plain_array() -> None:
    rng = random.Random(1)
    content = rng.randbytes(500)
    cache, there = RangeCache(10_000), [False] * 500
    for _ in range(40):
        begin = rng.randrange(500)
        end = min(begin + rng.randrange(1, 30), 500)
        gaps = cache.list_gaps(begin, end)
        assert [at for first, last in gaps for at in range(first, last)] == [
            at for at in range(begin, end) if not there[at]
        ]
        for first, last in gaps:
            cache.add(first, content[first:last])
            there[first:last] = [True] * (last - first)
        position = rng.randrange(500)
        found = bytes(cache.find(position, 20))
        assert found == content[position : position + len(found)]
        assert bool(found) == there[position]


def test_the_oldest_are_dropped() -> None:
    cache = RangeCache(100)
    for begin in range(0, 300, 30):
        cache.add(begin, bytes([begin // 30]) * 30)
    assert cache.list_gaps(0, 300) == [(0, 210)]
    cache.add(400, bytes(101))
    assert not cache.find(400, 1)
