"""Work that is done in threads, ahead of the loop that needs it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, depth: int = 2, threads: int = 2
) -> Iterator[tuple[Item, Result]]:
    """Pairs each item with what a function makes of it, in the items' order.

    Args:
        function: Called in other threads; worth it where it leaves Python's lock to others.
        items: Taken in the caller's thread.
        depth: How many results are made ahead, at most: so many more items are in memory.
        threads: For how many items at once; with 1 the calls come in the items' order.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                yield _done(waiting)
        while waiting:
            yield _done(waiting)


def _done(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, result = waiting.popleft()
    return item, result.result()
