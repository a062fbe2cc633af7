"""Lookahead: work on the next video, in a thread of its own, while the model works on this one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

Item = TypeVar("Item")

PATIENCE = 5.0
"""Seconds that closing waits for the thread, which may be in the middle of a video."""


class _Closed(Exception):
    """Nobody takes items any more."""


def look_ahead(produce: Callable[[Callable[[Item], None]], object], *, waiting: int = 1) -> Iterator[Item]:
    """Yield what a function hands over, which runs ahead in a thread of its own.

    Args:
        produce: called with a function that takes an item. It ends with its last item; where the iterator is closed
            before, that function raises, so that it ends at its next item.
        waiting: items that may lie ready before the thread waits; 0 for any number.

    Yields:
        Its items, in their order.

    Raises:
        Exception: what the function raised, after the items that it had handed over.
    """
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(waiting)
    closed = threading.Event()

    def hand_over(entry: tuple[bool, Item | BaseException | None]) -> None:
        while not closed.is_set():
            try:
                return ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
        raise _Closed

    def work() -> None:
        try:
            produce(lambda item: hand_over((True, item)))
            last: BaseException | None = None
        except _Closed:
            return
        except BaseException as error:  # raised again where the items are taken
            last = error
        try:
            hand_over((False, last))
        except _Closed:
            return

    thread = threading.Thread(target=work, name="lookahead", daemon=True)
    thread.start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if isinstance(item, BaseException):
                    raise item
                return
            yield cast(Item, item)
    finally:
        closed.set()
        thread.join(PATIENCE)
