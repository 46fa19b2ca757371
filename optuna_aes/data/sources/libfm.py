"""libfm files: a label, then one ``index:1`` for each field."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from optuna_aes.data.sources.blocks import read_blocks
from optuna_aes.data.sources.delimited import DelimitedTable, decode
from optuna_aes.errors import DataError

_FEATURE = r"^(\d+):1(?:\.0*)?$"


class LibfmTable(DelimitedTable):
    """A libfm file of categorical fields, told apart by their position and named ``f0``, ``f1`` and so on.

    The label -1 counts as 0. Every row has the same number of features, each with the value 1: a position with other values
    would be a number, which this format cannot tell from a category.

    Args:
        path: The file.

    Raises:
        DataError: If the file cannot be read, is empty, or a feature is not ``index:1``.
    """

    def __init__(self, path: Path) -> None:
        first = next(read_blocks(path, quoted=False), None)
        features = decode(path, first.data.split(b"\n", 1)[0], 1).split()[1:] if first else []
        super().__init__(path, separator=" ", names=["label", *(f"f{i}" for i in range(len(features)))], quoted=False)

    def _clean(self, data: bytes) -> bytes:
        return data.replace(b"\r", b"").replace(b" \n", b"\n").rstrip(b" \n")

    def _finish(self, frame: pl.DataFrame, line: int) -> pl.DataFrame:
        features = pl.all().exclude("label")
        fit = frame.select(features.str.contains(_FEATURE).fill_null(False))
        if not fit.select(pl.all_horizontal(pl.all().all())).item():
            name, row = next((c.name, c.arg_min() or 0) for c in fit.iter_columns() if not c.all())
            raise DataError(
                f"{self.path}: field {name} in line {line + row} is {frame[name][row]!r}: "
                "every feature must be index:1 (write numbers as CSV or Parquet)"
            )
        return frame.with_columns(
            pl.col("label").str.replace(r"^-1(?:\.0*)?$", "0"), features.str.replace(_FEATURE, "$1")
        )
