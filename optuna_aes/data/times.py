"""The time column of a time split: numbers, dates, or text that is either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from optuna_aes.errors import DataError


class TimeReader:
    """Collects the times of all rows, batch by batch, as float64 (8 bytes a row).

    Args:
        column: The time column's name.
        path: Of the table, for messages.
    """

    def __init__(self, column: str, *, path: Path) -> None:
        self.column, self._path = column, path
        self._parts: list[npt.NDArray[np.float64]] = []
        self._as_number: bool | None = None  # settled by the first batch, so that years and dates never mix

    def add(self, values: pl.Series, *, first: int) -> None:
        """Takes in a batch whose first row has the number ``first``.

        Raises:
            DataError: If a time is missing, or neither a number nor a date.
        """
        if values.dtype.is_nested():
            raise DataError(
                f"{self._path}: the time column {self.column!r} holds lists: name a column of numbers or dates"
            )
        times = self._convert(values)
        bad = times.is_null() | times.is_nan()
        if bad.any():
            row = int(bad.arg_true()[0])
            raise DataError(
                f"{self._path}: the time column {self.column!r} is {values[row]!r} in row {first + row}, neither a number nor "
                "a date: mend the row, or use split='random'"
            )
        self._parts.append(times.to_numpy())

    def times(self) -> npt.NDArray[np.float64]:
        """All times so far."""
        return np.concatenate(self._parts)

    def _convert(self, values: pl.Series) -> pl.Series:
        if values.dtype.is_temporal():
            return values.to_physical().cast(pl.Float64)
        numbers = values.cast(pl.Float64, strict=False)
        if self._as_number is None:
            self._as_number = numbers.null_count() < len(numbers)
        if self._as_number:
            return numbers
        try:
            return values.str.to_datetime(time_unit="us", strict=False).to_physical().cast(pl.Float64)
        except pl.exceptions.PolarsError:  # no format fits even one value
            return pl.Series([None] * len(values), dtype=pl.Float64)
