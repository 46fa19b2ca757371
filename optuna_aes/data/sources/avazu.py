"""Avazu's click logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from optuna_aes.data.sources.delimited import DelimitedTable
from optuna_aes.errors import DataError

HOUR = "hour"


def is_avazu(names: Sequence[str]) -> bool:
    """Whether a header is Avazu's."""
    return list(names[:3]) == ["id", "click", HOUR]


def expand_hour(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds ``hour_of_day`` and ``weekday`` (1 is Monday) to rows with Avazu's ``hour``, written YYMMDDHH."""
    # Without minutes polars takes no text for a time of day.
    when = (pl.col(HOUR).cast(pl.String) + "00").str.strptime(pl.Datetime, "%y%m%d%H%M", strict=False)
    return frame.with_columns(
        when.dt.hour().cast(pl.String).alias("hour_of_day"),
        when.dt.weekday().cast(pl.String).alias("weekday"),
    )


class AvazuTable(DelimitedTable):
    """Avazu's CSV: the label is ``click``, ``id`` is no feature, ``hour`` orders a time split and gives two fields.

    Args:
        path: The file.

    Raises:
        DataError: As :class:`DelimitedTable`, or if an hour is not YYMMDDHH.
    """

    label = "click"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.columns = tuple(replace(c, feature=c.name not in ("id", HOUR)) for c in self.columns)

    def _finish(self, frame: pl.DataFrame, line: int) -> pl.DataFrame:
        frame = expand_hour(frame)
        bad = frame["hour_of_day"].is_null().arg_true()
        if len(bad):
            row = int(bad[0])
            raise DataError(
                f"{self.path}: hour {frame[HOUR][row]!r} in line {line + row} is not YYMMDDHH: mend the row"
            )
        return frame
