"""Parquet files."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from optuna_aes.data.sources.base import Batch, Column, ColumnKind, Table, check_names, one_line
from optuna_aes.errors import DataError

_ROWS = 1 << 17  # of a batch


class ParquetTable(Table):
    """A Parquet file. A column of lists is a multi-valued field; structs and binary columns are no fields.

    Args:
        path: The file.

    Raises:
        DataError: If the file cannot be read as Parquet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.files = path, (path,)
        try:
            schema = pl.read_parquet_schema(path)
            self.size = int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._corrupt(error) from error
        check_names(path, list(schema))
        self.columns = tuple(Column(name, _kind(dtype)) for name, dtype in schema.items())

    def batches(self, names: Collection[str], *, numeric: Collection[str] = ()) -> Iterator[Batch]:
        """See :meth:`Table.batches`."""
        wanted = [c.name for c in self.columns if c.name in names]
        rows = 0
        try:
            scan = pl.scan_parquet(self.path, glob=False).select(wanted)
            for frame in scan.collect_batches(chunk_size=_ROWS, maintain_order=True):
                rows += frame.height
                yield Batch(frame, rows)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> DataError:
        return DataError(f"{self.path} cannot be read as Parquet ({one_line(error)}): write the file again")


def _kind(dtype: pl.DataType) -> ColumnKind:
    if dtype.is_integer():
        return "integer"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if isinstance(dtype, pl.List):
        return "list" if not dtype.inner.is_nested() else "unusable"
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        return "unusable"
    return "text"
