from __future__ import annotations

import numpy as np
import pytest

from optuna_aes.data.splits import TEST, TRAIN, VALID, cut_validation, random_split, time_split
from optuna_aes.errors import DataError

THIRDS = (0.5, 0.3, 0.2)


def test_random_split_has_exact_numbers_and_depends_on_the_seed_alone() -> None:
    split = random_split(1000, THIRDS, seed=3)
    np.testing.assert_array_equal(np.bincount(split), [500, 300, 200])
    np.testing.assert_array_equal(split, random_split(1000, THIRDS, seed=3))
    assert not np.array_equal(split, random_split(1000, THIRDS, seed=4))
    assert 80 < np.count_nonzero(split[:200] == TRAIN) < 120, "rows are mixed"


def test_time_split_is_ordered_and_keeps_equal_times_together() -> None:
    times = np.random.default_rng(0).integers(0, 50, 1000).astype(float)
    split = time_split(times, THIRDS, column="t")
    assert times[split == TRAIN].max() < times[split == VALID].min()
    assert times[split == VALID].max() < times[split == TEST].min()
    np.testing.assert_allclose(np.bincount(split) / 1000, THIRDS, atol=0.05)


def test_time_split_of_distinct_times_has_exact_numbers() -> None:
    times = np.random.default_rng(0).permutation(1000).astype(float)
    np.testing.assert_array_equal(np.bincount(time_split(times, THIRDS, column="t")), [500, 300, 200])


def test_too_few_distinct_times_are_an_error() -> None:
    with pytest.raises(DataError, match=r"time:day.*no row for validation"):
        time_split(np.array([1.0, 1.0, 1.0, 2.0]), THIRDS, column="day")


def test_validation_is_cut_from_training_rows_only() -> None:
    split = np.array([TRAIN] * 80 + [TEST] * 20, dtype=np.uint8)
    cut = cut_validation(split, THIRDS, seed=0)
    np.testing.assert_array_equal(np.bincount(cut), [50, 30, 20])
    assert (cut[80:] == TEST).all()
    np.testing.assert_array_equal(cut, cut_validation(split, THIRDS, seed=0))
    assert not np.array_equal(cut, cut_validation(split, THIRDS, seed=1))
