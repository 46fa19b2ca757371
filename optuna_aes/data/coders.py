"""Coders see a column once, before anything is known of it, and fit a field to the training rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from threading import Lock

import numpy as np
import numpy.typing as npt
import polars as pl

from optuna_aes.data.dataset import OOV, FieldKind, IntArray
from optuna_aes.data.fields import MISSING, CategoricalField, Codes, Field, NumericField, bag, number, text
from optuna_aes.data.lookup import FIRST, CodeTable
from optuna_aes.data.options import EncodeOptions

SAMPLE = 200_000  # training rows that the edges of a numeric field are made from


def make_coder(name: str, kind: FieldKind, options: EncodeOptions) -> Coder:
    """The coder for a column."""
    if kind == "numeric":
        return NumericCoder(name, options)
    return CategoricalCoder(name, options, multi=kind == "multi")


class Coder(ABC):
    """One column on its way from raw values to a fitted field.

    Attributes:
        name: The column.
        width: 4-byte codes a row.
        dtype: Of the codes.
    """

    name: str
    width: int
    dtype: type[np.generic]

    @abstractmethod
    def values(self, dtype: pl.DataType) -> pl.Expr:
        """The expression that turns the raw column, of any split, into what :meth:`codes` takes."""

    @abstractmethod
    def codes(self, values: pl.Series) -> Codes:
        """The values' codes, of shape ``(rows,)`` or ``(rows, width)``; may be called by several threads at once."""

    @abstractmethod
    def end_of_codes(self) -> None:
        """All rows have their codes: lets go of what only finding them took."""

    @abstractmethod
    def observe(self, codes: Codes, *, every: int) -> None:
        """Takes in the codes of some training rows; ``every`` k-th of them is enough for a sample."""

    @abstractmethod
    def varies(self) -> bool:
        """Whether any two of the observed rows differ."""

    @abstractmethod
    def fit(self) -> Field:
        """The field, fitted to what was observed."""


class CategoricalCoder(Coder):
    """Numbers the values in the order it meets them, and ranks them by frequency at the end.

    The dictionary is polars' own, shared by all batches. Only what is new is looked for in it: a value that was met before is
    found by its hash, in a third of the time where a vocabulary is large.

    Args:
        name: The column.
        options: ``min_count``, and of bags ``separator`` and ``max_values``.
        multi: Whether a row holds a bag of values.
    """

    dtype = np.uint32

    def __init__(self, name: str, options: EncodeOptions, *, multi: bool) -> None:
        self.name, self.multi, self._options = name, multi, options
        self.width = options.max_values if multi else 1
        self._type = pl.Categorical(pl.Categories.random())
        # Polars forgets a dictionary that no column uses; this one keeps it, and gives the empty string the code MISSING.
        self._anchor = pl.Series([""], dtype=self._type)
        self._met, self._lock = CodeTable(), Lock()
        self._counts = np.zeros(1, dtype=np.int64)
        self._longest, self._rows = 1, 0

    def values(self, dtype: pl.DataType) -> pl.Expr:
        """See :class:`Coder`."""
        if not self.multi:
            return text(self.name, dtype)
        return bag(self.name, dtype, separator=self._options.separator, width=self.width)

    def codes(self, values: pl.Series) -> Codes:
        """See :class:`Coder`."""
        if not self.multi:
            return self._codes(values)
        lengths = values.list.len().to_numpy()
        codes = np.full((len(values), self.width), MISSING, dtype=self.dtype)
        codes[np.arange(self.width) < lengths[:, np.newaxis]] = self._codes(values.filter(lengths > 0).explode())
        return codes

    def _codes(self, values: pl.Series) -> Codes:
        """Codes of text, of the shape of ``values``."""
        hashes = np.maximum(values.hash().to_numpy(), FIRST)
        with self._lock:
            codes, unknown = self._met.find(hashes)
            if len(unknown):
                codes[unknown] = values.gather(unknown).cast(self._type).to_physical().to_numpy()
                self._met.add(hashes[unknown], codes[unknown])
        return codes

    def end_of_codes(self) -> None:
        """See :class:`Coder`."""
        self._met = CodeTable()

    def observe(self, codes: Codes, *, every: int) -> None:
        """See :class:`Coder`."""
        self._rows += len(codes)
        if self.multi:
            held = codes != MISSING
            self._longest = max(self._longest, int(held.sum(axis=1).max(initial=0)))
            held[:, 0] = True  # the first column is MISSING only where the whole bag is
            codes = codes[held]
        new = int(codes.max(initial=0)) + 1 - len(self._counts)
        if new > 0:
            self._counts = np.pad(self._counts, (0, new))
        if len(self._counts) > 4 * len(codes):  # a pass over all of a large vocabulary would cost more than these rows
            np.add.at(self._counts, codes, 1)
        else:
            self._counts += np.bincount(codes, minlength=len(self._counts))

    def varies(self) -> bool:
        """See :class:`Coder`."""
        return bool(np.any((self._counts > 0) & (self._counts < self._rows)))

    def fit(self) -> CategoricalField:
        """See :class:`Coder`. Ties are broken by the value, so that ids do not depend on the order of rows or batches."""
        codes = pl.int_range(len(self._counts), dtype=pl.UInt32)
        seen = pl.select(codes.cat.to(self._type).cast(pl.String)).to_series()
        table = (
            pl.DataFrame({"value": seen, "count": self._counts})
            .with_row_index("code")
            .filter(
                (pl.col("count") >= self._options.min_count) | ((pl.col("code") == MISSING) & (pl.col("count") > 0))
            )
            .sort(["count", "value"], descending=[True, False])
        )
        lookup = np.full(len(seen) + 1, OOV, dtype=np.int32)
        lookup[table["code"].to_numpy()] = np.arange(1, table.height + 1, dtype=np.int32)
        width = min(self._longest, self.width) if self.multi else None
        return CategoricalField(self.name, seen, lookup, width, self._options.separator)


class NumericCoder(Coder):
    """Keeps a sample of the numbers, and puts the edges of buckets between them.

    Args:
        name: The column.
        options: ``numeric``, ``buckets``.
    """

    dtype = np.float32
    width = 1

    def __init__(self, name: str, options: EncodeOptions) -> None:
        self.name, self._options = name, options
        self._sample: list[npt.NDArray[np.float32]] = []
        self._missing = False
        self._phase = 0

    def values(self, dtype: pl.DataType) -> pl.Expr:
        """See :class:`Coder`."""
        return number(self.name)

    def codes(self, values: pl.Series) -> Codes:
        """See :class:`Coder`."""
        return values.to_numpy()

    def end_of_codes(self) -> None:
        """See :class:`Coder`. It took nothing."""

    def observe(self, codes: Codes, *, every: int) -> None:
        """See :class:`Coder`."""
        self._missing = self._missing or bool(np.isnan(codes).any())
        self._sample.append(codes[self._phase :: every].copy())
        self._phase = (self._phase - len(codes)) % every  # so that batches do not restart the count

    def varies(self) -> bool:
        """See :class:`Coder`. Numbers that share one bucket do not vary."""
        return len(self._edges) > 0 or (self._missing and len(self._values) > 0)

    def fit(self) -> NumericField:
        """See :class:`Coder`."""
        lookup = np.arange(1, len(self._edges) + 3, dtype=np.int32)
        lookup[-1] *= self._missing
        return NumericField(self.name, self._edges, lookup)

    @cached_property
    def _values(self) -> npt.NDArray[np.float32]:
        sample = np.concatenate([*self._sample, np.empty(0, dtype=np.float32)])
        return np.sort(sample[~np.isnan(sample)])

    @cached_property
    def _edges(self) -> npt.NDArray[np.float32]:
        if self._options.numeric == "log2":
            return log2_edges(self._values)
        return quantile_edges(self._values, self._options.buckets)


def quantile_edges(values: npt.NDArray[np.float32], buckets: int) -> npt.NDArray[np.float32]:
    """Edges of at most ``buckets`` buckets that hold about equally many of the sorted ``values``.

    A value so frequent that it is two or more quantiles gets a bucket to itself, however its neighbours then fall. No more
    distinct values than buckets get a bucket each.
    """
    distinct = np.unique(values)
    if len(distinct) <= buckets:
        return distinct[1:]
    at = np.arange(1, buckets) * len(values) // buckets
    cuts, repeats = np.unique(values[at], return_counts=True)
    after = np.searchsorted(distinct, cuts[repeats > 1]) + 1
    edges: npt.NDArray[np.float32] = np.union1d(cuts, distinct[after[after < len(distinct)]])
    above: npt.NDArray[np.float32] = edges[edges > distinct[0]]
    return above


def log2_edges(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Edges of the buckets ``floor(log(x)²)`` that ``values`` fall into.

    As in work on Criteo, whole numbers up to 2 have a bucket each and larger ones share that of ``floor(log(x)²)``; here
    the two kinds of buckets never mix (there, 3 falls in with 1), and negative numbers mirror positive ones.
    """
    if not len(values):
        return np.empty(0, dtype=np.float32)
    keys = log2_bucket(values)
    starts = np.concatenate([[False], keys[1:] != keys[:-1]])
    # Any edge between two neighbouring buckets will do: the smallest value seen in the upper one divides what was seen, the
    # bucket's own lower end divides the unseen values too.
    edges: npt.NDArray[np.float32] = np.minimum(_log2_start(keys[starts]), values[starts]).astype(np.float32)
    return edges


def log2_bucket(values: npt.NDArray[np.float32]) -> IntArray:
    """``floor(x)`` from -2 to 2, ``3 + floor(log(x)²)`` above, mirrored below."""
    size = np.minimum(np.abs(values.astype(np.float64)), 1e300)
    large = 3 + np.floor(np.log(np.maximum(size, 2)) ** 2)
    return np.where(size > 2, np.sign(values) * large, np.floor(values)).astype(np.int32)


def _log2_start(keys: IntArray) -> npt.NDArray[np.float64]:
    """The smallest value of a bucket of :func:`log2_bucket`."""
    up = np.maximum(np.exp(np.sqrt(np.maximum(keys - 3, 0))), np.nextafter(np.float32(2), np.float32(3)))
    down = -np.exp(np.sqrt(np.maximum(-keys - 2, 0)))
    return np.where(keys >= 3, up, np.where(keys <= -3, down, keys))
