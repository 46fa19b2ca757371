"""Which row is in which split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import DataError

SplitArray = npt.NDArray[np.uint8]
TRAIN, VALID, TEST = range(3)  # positions in dataset.SPLITS


def random_split(rows: int, fractions: tuple[float, float, float], *, seed: int) -> SplitArray:
    """Deals rows at random, in exact numbers: a function of ``rows``, ``fractions`` and ``seed`` alone.

    Args:
        rows: How many.
        fractions: Shares of training, validation and test.
        seed: Of the shuffle.
    """
    split = np.repeat(np.arange(3, dtype=np.uint8), _counts(rows, fractions))
    np.random.default_rng(seed).shuffle(split)  # one byte a row; a permutation would take eight
    return split


def time_split(times: npt.NDArray[np.float64], fractions: tuple[float, float, float], *, column: str) -> SplitArray:
    """Puts the earliest rows into training and the latest into test. Rows of equal time stay together, in the earlier split.

    Args:
        times: Of every row.
        fractions: Shares of training, validation and test.
        column: The time column, for the message.

    Raises:
        DataError: If so many rows share their time that a split would be empty.
    """
    train, valid, _ = _counts(len(times), fractions)
    at = [max(train - 1, 0), max(train + valid - 1, 0)]
    cuts = np.partition(times, at)[at]
    split = np.searchsorted(cuts, times, side="left").astype(np.uint8)
    for name, code in (("validation", VALID), ("test", TEST)):
        if not np.any(split == code):
            raise DataError(
                f"split='time:{column}' leaves no row for {name}: too many rows share a time; "
                "use a finer time column, other fractions, or split='random'"
            )
    return split


def cut_validation(split: SplitArray, fractions: tuple[float, float, float], *, seed: int) -> SplitArray:
    """Takes ``valid / (train + valid)`` of the training rows, at random, for validation, where training and test are given."""
    train = np.flatnonzero(split == TRAIN)
    share = fractions[1] / (fractions[0] + fractions[1])
    taken = np.random.default_rng(seed).choice(train, size=round(share * len(train)), replace=False)
    out = split.copy()
    out[taken] = VALID
    return out


def _counts(rows: int, fractions: tuple[float, float, float]) -> list[int]:
    valid, test = (min(round(rows * f), rows) for f in fractions[1:])
    return [max(rows - valid - test, 0), valid, test]
