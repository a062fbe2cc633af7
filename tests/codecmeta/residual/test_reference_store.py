from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import av
import numpy as np
import pytest

from codecmeta.decoding.decoder import Picture
from codecmeta.residual.reference_store import KEPT, MAX_REORDER, Decoded, ReferenceStore, in_decode_order

FRAME = av.VideoFrame(16, 16, "yuv420p")


def picture(packet: int) -> Picture:
    return Picture(packet=packet, frame=FRAME, payload=b"")


def pyramid(groups: int) -> list[int]:
    """Ranks of packets: I, then P and the three B before it (middle one first), again and again."""
    ranks = [0]
    for group in range(groups):
        ranks += [4 * group + shift for shift in (4, 2, 1, 3)]
    return ranks


def shown(ranks: list[int]) -> list[int]:
    """Packets in presentation order."""
    return [packet for packet in np.argsort(ranks, kind="stable").tolist() if ranks[packet] >= 0]


def test_pictures_come_in_the_order_of_their_packets_as_soon_as_they_can() -> None:
    ranks = pyramid(10)
    held, most = 0, 0

    def decoder() -> Iterator[Picture]:
        nonlocal held, most
        for packet in shown(ranks):
            held += 1
            most = max(most, held)
            yield picture(packet)

    got = []
    for one in in_decode_order(decoder(), np.array(ranks)):
        held -= 1
        got.append(one.packet)
    assert got == list(range(len(ranks)))
    assert shown(ranks) != got
    assert most == 4  # three B wait for the P behind them


@pytest.mark.parametrize("seed", range(5))
def test_any_order_within_reach_is_undone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.argsort(np.arange(200) + rng.uniform(0, MAX_REORDER - 1, 200))
    ranks = np.empty(200, np.int64)
    ranks[order] = np.arange(200)
    skipped = set(rng.choice(200, 40, replace=False).tolist())
    pictures = [picture(packet) for packet in order.tolist() if packet not in skipped]
    got = [one.packet for one in in_decode_order(pictures, ranks)]
    assert got == sorted(got)
    assert len(got) == 160


def test_unknown_places_and_packed_pictures() -> None:
    ranks = np.array([0, -1, 3, 2, 1])
    assert [one.packet for one in in_decode_order(map(picture, (0, 4, 3, 2)), ranks)] == [0, 2, 3, 4]
    twice = [picture(0), picture(1), picture(1), picture(2)]
    got = list(in_decode_order(twice, np.arange(3)))
    assert [id(one) for one in got] == [id(one) for one in twice]


def test_ranks_that_promise_too_much_hold_back_no_more_than_the_cap() -> None:
    ranks = np.arange(60)
    ranks[0] = 1000  # never shown
    waiting = 0
    for number, _ in enumerate(in_decode_order(map(picture, range(1, 60)), ranks)):
        waiting = number
    assert waiting == 58
    first = next(in_decode_order(iter([picture(packet) for packet in range(1, MAX_REORDER + 2)]), ranks))
    assert first.packet == 1


def test_the_store_keeps_the_last_references_and_the_room_of_the_others() -> None:
    store = ReferenceStore()
    added = [Decoded(picture=picture(k), rank=k, room=store.room) for k in range(KEPT + 3)]
    for k, one in enumerate(added):
        if k != 1:
            assert one.samples.shapes[0] == (16, 16)
        store.add(one)
        past, future = store.around(k - 1)
        assert [p.rank for p in future] == [k]
        assert [p.rank for p in past] == list(range(k - 2, max(k - 6, k - KEPT), -1))[: max(k - 1, 0)]
    # 0 and 2 were forgotten with samples, 1 without; the last ones took over the room of 0
    samples = [cast(object, one.samples) for k, one in enumerate(added) if k != 1]
    assert any(one is other for i, one in enumerate(samples) for other in samples[:i])
    alive = [id(one.samples) for one in added[-KEPT:]]
    assert len(set(alive)) == KEPT
