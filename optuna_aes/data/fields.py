"""Fitted fields: from a raw column to ids. What the encoder keeps, and all that it needs to encode new rows.

The way of every column has two steps. ``codes`` turns raw values into 4-byte codes in polars, one expression a column;
``ids`` maps codes to ids in numpy. While a table is read for the first time, when nothing is fitted yet, a coder
(:mod:`optuna_aes.data.coders`) does the first step with a dictionary that grows; the second step is the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from optuna_aes.data.dataset import PAD, FieldKind, FieldSpec, IntArray

Codes = npt.NDArray[Any]  # uint32 of categories, float32 of numbers
MISSING = 0  # the code of null, NaN and the empty string


def text(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as text, the empty string where a value is missing."""
    column = pl.col(name)
    if dtype.is_float():
        column = column.fill_nan(None)
    return column.cast(pl.String).fill_null("")


def bag(name: str, dtype: pl.DataType, *, separator: str, width: int) -> pl.Expr:
    """A multi-valued column as lists of its first ``width`` distinct values as text, without empty ones."""
    column = pl.col(name)
    if isinstance(dtype, pl.List):
        lists = column.cast(pl.List(pl.String))
    else:
        lists = column.cast(pl.String).str.split(separator)
    values = pl.element().filter((pl.element() != "") & pl.element().is_not_null())
    return lists.fill_null([]).list.eval(values).list.unique(maintain_order=True).list.head(width)


def to_numpy(column: pl.Series) -> Codes:
    """Codes as an array of shape ``(rows,)`` or ``(rows, width)``."""
    if isinstance(column.dtype, pl.Array):
        return column.explode().to_numpy().reshape(-1, column.dtype.size)
    return column.to_numpy()


class Field(ABC):
    """A fitted field."""

    name: str

    @property
    @abstractmethod
    def spec(self) -> FieldSpec:
        """The field in the dataset's schema."""

    @abstractmethod
    def codes(self, dtype: pl.DataType) -> pl.Expr:
        """The expression that turns the raw column into codes that :meth:`ids` takes."""

    @abstractmethod
    def ids(self, codes: Codes) -> IntArray:
        """Ids of codes, shape ``(rows,)``, or ``(rows, width)`` of a multi-valued field."""


@dataclass(frozen=True, eq=False)
class CategoricalField(Field):
    """A field whose values have one id each.

    Args:
        name: The column.
        values: The known values in the order of their codes; the first is the empty string, which stands for missing.
        lookup: The id of each code, and at the end the id of every later code: out of the vocabulary.
        width: Largest bag of a multi-valued field; None for a field with one value a row.
        separator: Of the values of a bag.
    """

    name: str
    values: pl.Series
    lookup: IntArray
    width: int | None = None
    separator: str = "|"

    @property
    def spec(self) -> FieldSpec:
        """See :class:`Field`."""
        kind: FieldKind = "categorical" if self.width is None else "multi"
        return FieldSpec(self.name, kind, 1 + int(self.lookup.max(initial=0)), self.width or 1)

    def codes(self, dtype: pl.DataType) -> pl.Expr:
        """See :class:`Field`."""
        if self.width is None:
            return self._code(text(self.name, dtype))
        codes = bag(self.name, dtype, separator=self.separator, width=self.width).list.eval(self._code(pl.element()))
        filled = codes.list.gather(list(range(self.width)), null_on_oob=True).list.eval(pl.element().fill_null(MISSING))
        return filled.list.to_array(self.width)

    @cached_property
    def _known(self) -> pl.Enum:
        return pl.Enum(self.values)

    def _code(self, value: pl.Expr) -> pl.Expr:
        return value.cast(self._known, strict=False).to_physical().cast(pl.UInt32).fill_null(len(self.values))

    def ids(self, codes: Codes) -> IntArray:
        """See :class:`Field`."""
        if self.width is not None:
            codes = codes[:, : self.width]
        ids: IntArray = self.lookup.take(codes, mode="clip")
        if self.width is not None:
            ids[:, 1:][codes[:, 1:] == MISSING] = PAD  # a bag with no value at all keeps its first id: missing
        return ids


@dataclass(frozen=True, eq=False)
class NumericField(Field):
    """A field of buckets, whose ids go up with the value.

    Args:
        name: The column.
        edges: float32, rising. A value below ``edges[0]`` is in the first bucket, one at or above ``edges[-1]`` in the last.
        lookup: The id of each bucket, and at the end the id of a missing value.
    """

    name: str
    edges: npt.NDArray[np.float32]
    lookup: IntArray

    @property
    def spec(self) -> FieldSpec:
        """See :class:`Field`."""
        return FieldSpec(self.name, "numeric", 1 + int(self.lookup.max(initial=0)))

    def codes(self, dtype: pl.DataType) -> pl.Expr:
        """See :class:`Field`."""
        return number(self.name)

    def buckets(self, codes: Codes) -> npt.NDArray[np.intp]:
        """The bucket of each number, ``len(edges) + 1`` for a missing one."""
        bucket = np.searchsorted(self.edges, codes, side="right")
        bucket[np.isnan(codes)] = len(self.edges) + 1
        return bucket

    def ids(self, codes: Codes) -> IntArray:
        """See :class:`Field`."""
        return self.lookup[self.buckets(codes)]


def number(name: str) -> pl.Expr:
    """A column as float32, NaN where a value is missing."""
    return pl.col(name).cast(pl.Float32).fill_null(float("nan"))
