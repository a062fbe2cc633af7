"""Lookahead: the next item is made while this one is used, in order, and nothing is left running."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from compress.models.lookahead import look_ahead


def test_the_next_item_is_made_while_this_one_is_used() -> None:
    begun = [threading.Event() for _ in range(4)]

    def produce(hand_over: Callable[[int], None]) -> None:
        for number, event in enumerate(begun):
            event.set()
            hand_over(number)

    used = []
    for number in look_ahead(produce):
        # The thread needs nobody to take this item before it begins the next.
        if number + 1 < len(begun):
            assert begun[number + 1].wait(timeout=60)
        used.append(number)
    assert used == [0, 1, 2, 3]


def test_few_items_lie_ready() -> None:
    made = []

    def produce(hand_over: Callable[[int], None]) -> None:
        for number in range(10):
            made.append(number)
            hand_over(number)

    for number in look_ahead(produce, waiting=1):
        assert len(made) <= number + 3  # this one, one that lies ready, one that is handed over


def test_an_error_comes_after_the_items_before_it() -> None:
    def produce(hand_over: Callable[[int], None]) -> None:
        hand_over(1)
        raise ValueError("no more")

    items = look_ahead(produce)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)


def test_closing_ends_the_thread() -> None:
    def produce(hand_over: Callable[[int], None]) -> None:
        number = 0
        while True:
            hand_over(number)
            number += 1

    before = threading.active_count()
    items: Any = look_ahead(produce)
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
