from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from optuna_aes.data.times import TimeReader
from optuna_aes.errors import DataError


@pytest.mark.parametrize(
    "values",
    [
        [3, 1, 2],
        ["3", "1", "2.5"],
        [datetime(2020, 3, 1), datetime(2019, 1, 1), datetime(2020, 1, 1)],
        ["2020-03-01 10:00:00", "2019-01-01 00:00:00", "2020-01-01 23:59:59"],
        ["2020-03-01", "2019-01-01", "2020-01-01"],
    ],
)
def test_numbers_and_dates_are_ordered(values: list[object]) -> None:
    clock = TimeReader("t", path=Path("x.csv"))
    clock.add(pl.Series("t", values), first=1)
    clock.add(pl.Series("t", values[:1]), first=4)
    np.testing.assert_array_equal(np.argsort(clock.times()[:3]), [1, 2, 0])
    assert len(clock.times()) == 4


@pytest.mark.parametrize("values", [["5", "soon"], ["5", None], ["2020-01-01", "soon"], ["soon", "later"]])
def test_other_values_are_refused_with_their_row(values: list[str | None]) -> None:
    row = 7 if values[0] == "soon" else 8
    with pytest.raises(DataError, match=f"time column 't' is .* in row {row}, neither a number nor a date"):
        TimeReader("t", path=Path("x.csv")).add(pl.Series("t", values), first=7)
