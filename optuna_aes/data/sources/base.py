"""What every source gives: tables of named columns, read in batches of rows, one table for each given split."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from optuna_aes.errors import DataError

ColumnKind = Literal["integer", "float", "text", "list", "unusable"]
_RANK: tuple[ColumnKind, ...] = ("integer", "float", "text", "list", "unusable")


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: Its name.
        kind: What it holds; a text file's columns are judged by its first rows.
        feature: False for a column that may order a time split but is never a field, such as a timestamp.
    """

    name: str
    kind: ColumnKind
    feature: bool = True


class Batch(NamedTuple):
    """Consecutive rows of a table, and how much of the table has been read after them, in the table's units."""

    frame: pl.DataFrame
    position: int


class Table(ABC):
    """A table on disk that is read from first row to last, in batches.

    Attributes:
        path: The file or folder, for messages.
        columns: In the order of the file.
        label: The label's column where the user names none.
        size: The whole, in the units of :attr:`Batch.position` (bytes of a text file, rows of a Parquet file).
        files: Everything that is read, for cache keys.
    """

    path: Path
    columns: tuple[Column, ...]
    label: str = "label"
    size: int
    files: tuple[Path, ...]

    @abstractmethod
    def batches(self, names: Collection[str], *, numeric: Collection[str] = ()) -> Iterator[Batch]:
        """Reads the named columns; those in ``numeric`` come as numbers, others as they are or as text.

        Raises:
            DataError: If the file turns out to be malformed.
        """


@dataclass(frozen=True)
class Source:
    """One or more tables with the same columns.

    Args:
        path: What the user named.
        format: ``"csv"``, ``"parquet"``, ``"libfm"``, ``"criteo"``, ``"avazu"`` or ``"movielens"``.
        tables: The tables with the split each is; None stands for a table that has yet to be split.
        columns: Of all tables.
    """

    path: Path
    format: str
    tables: tuple[tuple[str | None, Table], ...]
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, path: Path, format: str, tables: Sequence[tuple[str | None, Table]]) -> Source:
        """Joins tables into a source.

        Raises:
            DataError: If their columns differ.
        """
        first = tables[0][1]
        names = {c.name for c in first.columns}
        for _, table in tables[1:]:
            other = {c.name for c in table.columns}
            if other != names:
                odd = sorted(names ^ other)[0]
                has, lacks = (first, table) if odd in names else (table, first)
                raise DataError(
                    f"column {odd!r} is in {has.path} and not in {lacks.path}: give all splits the same columns"
                )
        kinds = {name: [c.kind for _, t in tables for c in t.columns if c.name == name] for name in names}
        columns = tuple(Column(c.name, max(kinds[c.name], key=_RANK.index), c.feature) for c in first.columns)
        return cls(path=path, format=format, tables=tuple(tables), columns=columns)

    @property
    def label(self) -> str:
        """The label's column where the user names none."""
        return self.tables[0][1].label

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that is read."""
        return tuple(f for _, table in self.tables for f in table.files)

    @property
    def size(self) -> int:
        """The sum of the tables' sizes."""
        return sum(table.size for _, table in self.tables)


def check_names(path: Path, names: Sequence[str]) -> None:
    """Refuses a header with an empty or a repeated name.

    Raises:
        DataError: With the name, or the position of the empty one.
    """
    for i, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: column {i + 1} has no name: name it in the header, or remove it")
        if name in names[:i]:
            raise DataError(f"{path}: column {name!r} is there twice: rename or remove one")


def suggest(name: str, names: Iterable[str]) -> str:
    """Names near to ``name`` for an error message, or the first few of all."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "the columns are " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "")


def one_line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
