from __future__ import annotations

import numpy as np

from optuna_aes.strategies.paths import threshold_path, to_candidates, widest_gaps


def test_every_threshold_is_a_point_and_equal_columns_come_together() -> None:
    path = threshold_path(np.array([[0.5, 0.1, 0.3], [0.3, 0.9, 0.0]]))
    assert path.tolist() == [[0, 0], [0, 1], [1, 1], [2, 2], [3, 2], [3, 3]]


def test_sizes_are_nested_whatever_the_importance() -> None:
    importance = np.random.default_rng(0).random((5, 7))
    path = threshold_path(importance)
    assert len(path) == 36
    assert (np.diff(path, axis=0) >= 0).all()
    for sizes, threshold in zip(path[1:], np.sort(importance.ravel())[::-1], strict=True):
        np.testing.assert_array_equal(sizes, (importance >= threshold).sum(1))


def test_sizes_are_rounded_down_to_candidates_and_points_kept_once() -> None:
    sizes = np.array([[0, 0], [1, 3], [2, 3], [3, 5], [4, 5]])
    assert to_candidates(sizes, (0, 2, 4)).tolist() == [[0, 0], [0, 1], [1, 1], [1, 2], [2, 2]]
    assert to_candidates(sizes, (1, 4)).tolist() == [[0, 0], [0, 1], [1, 1]]  # nothing smaller than 1 to be had


def test_the_ends_come_first_and_then_the_widest_gap() -> None:
    costs = np.array([0, 10, 20, 30, 40, 100])
    assert widest_gaps(costs, {}, 2) == [5, 0]
    # Between 0 and 40 the front may gain .5 · 40, between 40 and 100 .1 · 60, where there is no point anyway.
    assert widest_gaps(costs, {0: 0.0, 4: 0.5, 5: 0.6}, 1) == [2]
    assert widest_gaps(costs, {0: 0.0, 2: 0.4, 4: 0.5, 5: 0.6}, 1) == [1]


def test_it_ends_when_all_points_are_known() -> None:
    costs = np.array([1, 2, 4, 8])
    assert sorted(widest_gaps(costs, {}, 10)) == [0, 1, 2, 3]
    assert widest_gaps(costs, dict.fromkeys(range(4), 0.5), 3) == []


def test_equal_values_still_leave_something_to_learn() -> None:
    assert widest_gaps(np.arange(9), {0: 0.5, 8: 0.5}, 1) == [4]
    assert widest_gaps(np.arange(9), {0: 0.6, 8: 0.5}, 1) == [4]
