from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from optuna_aes.data.labels import check_classes, parse_labels
from optuna_aes.errors import DataError


@pytest.mark.parametrize(
    "values", [[0, 1, 1], ["0", "1", "1"], [0.0, 1.0, 1.0], [False, True, True], ["False", "true", "1.0"]]
)
def test_zero_and_one_however_written(values: list[object]) -> None:
    labels = parse_labels(pl.Series("y", values), path=Path("t"), first=1)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [0, 1, 1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], "label 'y' is 2 in row 12: a label must be 0 or 1"),
        (["0", "yes"], "label 'y' is 'yes' in row 11"),
        ([0.0, 0.5], "label 'y' is 0.5 in row 11"),
        ([0, None], "label 'y' is missing in row 11"),
        (["0", ""], "label 'y' is missing in row 11"),
    ],
)
def test_anything_else_is_refused_with_its_row(values: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_labels(pl.Series("y", values), path=Path("t"), first=10)


def test_a_split_needs_rows_of_both_classes() -> None:
    check_classes(np.array([0, 1], dtype=np.uint8), path=Path("t"), split="test", label="y")
    with pytest.raises(DataError, match="the test split has no rows"):
        check_classes(np.array([], dtype=np.uint8), path=Path("t"), split="test", label="y")
    with pytest.raises(DataError, match="'y' is 1 in all 2 rows of the valid split"):
        check_classes(np.array([1, 1], dtype=np.uint8), path=Path("t"), split="valid", label="y")
