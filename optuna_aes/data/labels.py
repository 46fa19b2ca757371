"""Labels: 0 and 1 in the ways people write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from optuna_aes.data.dataset import LabelArray
from optuna_aes.errors import DataError

_MEANING = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def parse_labels(column: pl.Series, *, path: Path, first: int) -> LabelArray:
    """Turns a column of 0 and 1 (also 0.0, 1.0, false, true) into uint8.

    Args:
        column: The raw labels.
        path: Of the table, for the message.
        first: Row number of the first label, counted from 1.

    Raises:
        DataError: If a label is missing or is anything else; the message names the row.
    """
    if (
        column.dtype.is_integer() and not column.null_count() and column.is_between(0, 1).all()
    ):  # no need to spell them out
        return column.cast(pl.UInt8).to_numpy()
    text = column.cast(pl.String).str.to_lowercase()
    distinct = text.unique()
    if distinct.is_in(list(_MEANING)).all() and not distinct.null_count():
        return text.replace_strict(_MEANING, return_dtype=pl.UInt8).to_numpy()
    row = int(np.flatnonzero(~text.is_in(list(_MEANING)).fill_null(False).to_numpy())[0])
    if column[row] in (None, ""):
        raise DataError(
            f"{path}: the label {column.name!r} is missing in row {first + row}: fill it in, or remove the row"
        )
    raise DataError(
        f"{path}: the label {column.name!r} is {column[row]!r} in row {first + row}: a label must be 0 or 1 "
        "(name another column with label=, or make one, such as rating >= 4)"
    )


def check_classes(labels: LabelArray, *, path: Path, split: str, label: str) -> None:
    """Refuses labels that AUC cannot be computed of.

    Raises:
        DataError: If there is no row, or one class only.
    """
    if not len(labels):
        raise DataError(f"{path}: the {split} split has no rows: give more rows, or larger fractions")
    if labels.min() == labels.max():
        raise DataError(
            f"{path}: the label {label!r} is {labels[0]} in all {len(labels)} rows of the {split} split, and AUC needs both "
            "classes: give more rows, or split them otherwise"
        )
