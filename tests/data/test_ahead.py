from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from optuna_aes.data.ahead import ahead


def test_results_come_in_the_order_of_their_items() -> None:
    second = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            assert second.wait(10)  # two are in work at once
        if item == 1:
            second.set()
        return item**2

    assert list(ahead(slow_first, range(7))) == [(i, i**2) for i in range(7)]
    assert list(ahead(slow_first, [])) == []


def test_no_more_items_are_taken_than_the_depth_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    for item, _ in ahead(str, items(), depth=3):
        assert len(taken) <= item + 4


def test_what_a_result_raises_comes_in_its_turn_and_ends_it() -> None:
    before = set(threading.enumerate())
    results = ahead(lambda item: 1 / (item - 3), range(10))
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert set(threading.enumerate()) <= before
