"""Tables as text: CSV, and every format that is CSV with other signs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from optuna_aes.data.sources.base import Batch, Column, ColumnKind, Table, check_names, one_line
from optuna_aes.data.sources.blocks import Block, read_blocks
from optuna_aes.errors import DataError

_SNIFF_ROWS = 10_000
_QUOTED = re.compile(rb'"[^"]*"')


class DelimitedTable(Table):
    """A text file with one row a line.

    A column counts as integer, float or text by its first rows, all of which must agree. Integers are handed on as text, so
    that a later value that is no number does no harm.

    Args:
        path: The file.
        separator: Between fields; None takes whichever of comma, tab and semicolon the header holds most of.
        names: The columns of a file without a header.
        quoted: Whether ``"`` quotes fields.

    Raises:
        DataError: If the file cannot be read, is empty, is not UTF-8, or its header has repeated or empty names.
    """

    def __init__(
        self, path: Path, *, separator: str | None = None, names: Sequence[str] | None = None, quoted: bool = True
    ) -> None:
        self.path, self.files, self.quoted = path, (path,), quoted
        self._header = names is None
        first = next(read_blocks(path, quoted=quoted), None)
        if first is None:
            raise DataError(f"{path} is empty: give a table with at least one row of each class")
        if names is None:
            header = decode(path, first.data.split(b"\n", 1)[0], 1).rstrip("\r")
            self.separator = separator or max(",\t;", key=header.count)
            names = next(csv.reader([header], delimiter=self.separator), [])
        else:
            self.separator = separator or ","
        check_names(path, names)
        self.size = path.stat().st_size
        self._names = list(names)
        self.columns = tuple(Column(name, kind) for name, kind in self._kinds(first))

    def batches(self, names: Collection[str], *, numeric: Collection[str] = ()) -> Iterator[Batch]:
        """See :meth:`Table.batches`."""
        for block in read_blocks(self.path, quoted=self.quoted):
            frame, line = self._parse(block, numeric)
            frame = self._finish(frame, line)
            yield Batch(frame.select([n for n in frame.columns if n in names]), block.position)

    def _finish(self, frame: pl.DataFrame, line: int) -> pl.DataFrame:
        """A format's own last touch to the rows that start at ``line``."""
        return frame

    def _kinds(self, block: Block) -> Iterator[tuple[str, ColumnKind]]:
        lines = block.data.splitlines(keepends=True)[: _SNIFF_ROWS + 1]
        cut = len(block.data) if len(lines) <= _SNIFF_ROWS else len(b"".join(lines))
        while self.quoted and cut < len(block.data) and block.data.count(b'"', 0, cut) % 2:
            cut = block.data.find(b"\n", cut) + 1
        frame, line = self._parse(replace(block, data=block.data[:cut]), ())
        for column in self._finish(frame, line).iter_columns():
            yield column.name, _kind(column)

    def _parse(self, block: Block, numeric: Collection[str]) -> tuple[pl.DataFrame, int]:
        """The rows of a block, as text or numbers, and the number of the first one's line."""
        data, line = block.data, block.line
        if self._header and line == 1:
            data, line = data[data.find(b"\n") + 1 :] if b"\n" in data else b"", 2
        data = self._clean(data)
        schema = {name: pl.Float64 if name in numeric else pl.String for name in self._names}
        try:
            frame = self._read(data, schema)
        except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
            raise self._diagnose(data, line, numeric, error) from error
        quotes = self.quoted and b'"' in data
        plain = _QUOTED.sub(b"", data) if quotes else data
        # numpy counts a frequent byte ten times as fast as bytes.count
        separators = np.count_nonzero(np.frombuffer(plain, dtype=np.uint8) == ord(self.separator))
        if separators != frame.height * (len(self._names) - 1):
            raise self._diagnose(data, line, numeric, ValueError("its rows differ in length"))
        return frame, line

    def _clean(self, data: bytes) -> bytes:
        return data

    def _read(self, data: bytes, schema: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
        return pl.read_csv(
            data,
            has_header=False,
            schema=schema,
            separator=self.separator,
            quote_char='"' if self.quoted else None,
        )

    def _diagnose(self, data: bytes, line: int, numeric: Collection[str], error: Exception) -> DataError:
        """What is wrong with a block that the parser refused, told so that the user can find it."""
        text = decode(self.path, data, line)
        reader = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=self.separator,
            quoting=csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE,
        )
        start = line
        for row in reader:
            if len(row) != len(self._names):
                return DataError(
                    f"{self.path}: line {start} has {len(row)} values for {len(self._names)} columns: "
                    "mend the row, or quote values that hold the separator"
                )
            for name, value in zip(self._names, row, strict=True):
                if name in numeric and value and not _is_number(value):
                    return DataError(
                        f"{self.path}: column {name!r} is numeric and has {value!r} in line {start}: "
                        f"mend the value, or treat the column as categories with categorical=('{name}',)"
                    )
            start = line + reader.line_num
        return DataError(
            f"{self.path}: cannot read the rows from line {line} on ({one_line(error)}): check the quotes there"
        )


def decode(path: Path, data: bytes, line: int) -> str:
    """Decodes UTF-8, or raises a :class:`DataError` that names file and line."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + data.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}: line {at} holds bytes that are not UTF-8 (0x{data[error.start]:02x}): save the file as UTF-8"
        ) from error


def _kind(column: pl.Series) -> ColumnKind:
    if column.dtype.is_nested():
        return "list"
    values = column.head(_SNIFF_ROWS).drop_nulls()
    values = values.filter(values != "") if values.dtype == pl.String else values
    if values.is_empty():
        return "text"
    if values.cast(pl.Int64, strict=False).null_count() == 0:
        return "integer"
    return "float" if values.cast(pl.Float64, strict=False).null_count() == 0 else "text"


def _is_number(value: str) -> bool:
    return pl.Series([value]).cast(pl.Float64, strict=False).null_count() == 0
