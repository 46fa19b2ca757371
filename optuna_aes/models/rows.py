"""Tables that are read and updated by the row: a step touches the rows of its batch and nothing else.

A lookup gathers the batch's distinct rows into a small leaf tensor and indexes that, so that autograd never makes a
gradient of the table's shape; a :class:`optuna_aes.models.row_optimizers.RowOptimizer` then writes the same rows back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BY_DIGITS = 32_768  # integers that torch sorts by their digits
_WORTH_FILLING = 12_288  # so few that filling them up costs what it saves


@dataclass(frozen=True)
class BatchRows:
    """The distinct table rows of a batch.

    Args:
        rows: int64, shape ``(distinct,)``, ascending.
        inverse: int32 or int64, shape ``(batch, columns)``: the position in ``rows`` of every entry of the batch.
        order: int64, shape ``(batch · columns,)``: the entries row by row, those of one row in the batch's order. None
            where nobody sorted them.
        start: int64, shape ``(distinct,)``: where each row's entries begin in ``order``.
    """

    rows: Tensor
    inverse: Tensor
    order: Tensor | None = None
    start: Tensor | None = None

    @classmethod
    def of(cls, ids: Tensor, total: int) -> BatchRows:
        """Finds the distinct rows of ``ids``.

        Args:
            ids: int32 or int64 row numbers, shape ``(batch, columns)``; int32 ones are sorted in half the time.
            total: Rows of the table; decides between marking (small tables) and sorting (large ones).
        """
        flat = ids.reshape(-1)
        if total <= 4 * len(flat):
            flat = flat.long()
            seen = torch.zeros(total, dtype=torch.bool, device=ids.device).index_fill_(0, flat, True)
            rows = seen.nonzero().squeeze(1)
            position = torch.empty(total, dtype=torch.int64, device=ids.device)
            position[rows] = torch.arange(len(rows), device=ids.device)
            return cls(rows, position.index_select(0, flat).view(ids.shape))
        ordered, order = sorted_stably(flat)
        first = torch.ones(len(flat), dtype=torch.bool, device=ids.device)
        torch.ne(ordered[1:], ordered[:-1], out=first[1:])
        start = first.nonzero().squeeze(1)
        number = first.cumsum(0, dtype=torch.int32).sub_(1)
        inverse = torch.empty_like(number).scatter_(0, order, number)
        return cls(ordered.index_select(0, start).long(), inverse.view(ids.shape), order, start)

    def part(self, low: int, high: int, columns: Tensor) -> BatchRows:
        """Those of some columns, which are the only ones with rows in a range, and have no others.

        Args:
            low: First row of the range.
            high: The row after its last one.
            columns: int64, shape ``(part's columns,)``.

        Returns:
            Rows, numbered from ``low`` on, and entries of the part.
        """
        bounds = torch.tensor([low, high], device=self.rows.device)
        first, last = torch.searchsorted(self.rows, bounds).tolist()
        rows, inverse = self.rows[first:last] - low, self.inverse[:, columns] - first
        if self.order is None or self.start is None or first == last:
            return BatchRows(rows, inverse)
        begin = int(self.start[first])
        end = int(self.start[last]) if last < len(self.start) else len(self.order)
        # An entry's place in the part: its sample's, and its column's among the part's.
        place = torch.empty(self.inverse.shape, dtype=torch.int64, device=self.rows.device)
        place[:, columns] = torch.arange(inverse.numel(), device=self.rows.device).view(inverse.shape)
        return BatchRows(rows, inverse, place.view(-1)[self.order[begin:end]], self.start[first:last] - begin)

    def lookup(self, leaf: Tensor) -> Tensor:
        """The rows of every entry, shape ``(batch, columns, dim)``, with a gradient that sums over equal rows.

        Args:
            leaf: The distinct rows, shape ``(distinct, dim)``.
        """
        if leaf.device.type != "cpu":
            return F.embedding(self.inverse, leaf)
        found: Tensor = _Lookup.apply(leaf, self.inverse, self.order, self.start)  # type: ignore[no-untyped-call]
        return found


def sorted_stably(values: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in ascending order, equal ones as they came, and where each was; both of shape ``(values,)``.

    On the CPU torch sorts by digits from 32,768 integers on, and by comparing below. What falls a little short of that is
    filled up with the largest integer, which stays behind: a third of the time for a batch of 1,024 rows and 26 fields.

    Args:
        values: int32 or int64, shape ``(values,)``.
    """
    count = len(values)
    if values.device.type == "cpu" and _WORTH_FILLING <= count < _BY_DIGITS:
        filling = values.new_full((_BY_DIGITS - count,), torch.iinfo(values.dtype).max)
        values = torch.cat([values, filling])
    ordered, order = torch.sort(values, stable=True)
    return ordered[:count], order[:count]


class _Lookup(torch.autograd.Function):
    """``F.embedding`` whose backward pass on the CPU takes a tenth of torch's, which adds up row by row."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, inverse: Tensor, order: Tensor | None, start: Tensor | None) -> Tensor:
        ctx.save_for_backward(inverse, order, start)
        ctx.distinct = len(leaf)
        return F.embedding(inverse, leaf)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        inverse, order, start = ctx.saved_tensors
        values = grad.reshape(inverse.numel(), grad.shape[-1])
        if order is None:
            summed = values.new_zeros(ctx.distinct, values.shape[1]).index_add_(0, inverse.reshape(-1).long(), values)
        else:
            summed = F.embedding_bag(order, values, start, mode="sum")
        return summed, None, None, None


class RowTable(nn.Module):
    """An embedding table whose gradient lives on the rows of the last batch.

    Args:
        rows: Rows of the table.
        dim: Columns.
        std: Standard deviation of the normal initial values; 0 for zeros.
        zero_rows: Rows that start at zero, such as the out-of-vocabulary row of each field.
        generator: Source of the initial values.
    """

    def __init__(
        self,
        rows: int,
        dim: int,
        *,
        std: float = 0.01,
        zero_rows: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        weight = torch.zeros(rows, dim)
        if std > 0:
            weight.normal_(0.0, std, generator=generator)
            weight[list(zero_rows)] = 0.0
        # No gradient of the table's own shape is ever wanted, and a dense optimiser must not pick it up.
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.touched: Touched | None = None

    def gather(self, rows: Tensor, widths: Tensor | None = None) -> Tensor:
        """The rows as a leaf that receives a gradient; they are what the next optimiser step updates.

        Args:
            rows: int64 distinct row numbers, shape ``(distinct,)``.
            widths: Columns in use of every row, shape ``(distinct,)``; the optimiser leaves the others as they are.

        Returns:
            Shape ``(distinct, dim)``.
        """
        leaf = self.weight.index_select(0, rows)
        if torch.is_grad_enabled():
            leaf.requires_grad_(True)
            self.touched = Touched(rows, leaf, widths)
        return leaf

    def lookup(self, ids: Tensor) -> Tensor:
        """Plain lookup, shape ``(*ids.shape, dim)``; without a gradient, or with one of the table's shape."""
        return F.embedding(ids, self.weight)


class SelfUpdating(nn.Module, ABC):
    """A module with tables that it updates itself in the backward pass, and no optimiser of ours."""

    @abstractmethod
    def scale_lr(self, share: float) -> None:
        """Sets the learning rate of its tables to a share of the one they began with."""


@dataclass(frozen=True)
class Touched:
    """What one step read of a table: row numbers, the leaf that holds their gradient, columns in use."""

    rows: Tensor
    leaf: Tensor
    widths: Tensor | None


class TouchedParts:
    """Adds up the gradients of the parts of a step, so that tables are updated once for all of them.

    Args:
        tables: The tables by name.
    """

    def __init__(self, tables: Mapping[str, RowTable]) -> None:
        self.tables = tables
        self.found: dict[str, list[Touched]] = {}

    def add(self) -> None:
        """Takes what the part just done has touched."""
        for name, table in self.tables.items():
            if table.touched is not None and table.touched.leaf.grad is not None:
                self.found.setdefault(name, []).append(table.touched)
            table.touched = None

    @torch.no_grad()
    def put_back(self) -> None:
        """Makes it look as if the whole step had been one part; does nothing where it was."""
        for name, parts in self.found.items():
            table = self.tables[name]
            rows, at = torch.unique(torch.cat([part.rows for part in parts]), return_inverse=True)
            leaf = table.weight.index_select(0, rows)
            grads = torch.cat([part.leaf.grad for part in parts if part.leaf.grad is not None])
            leaf.grad = torch.zeros_like(leaf).index_add_(0, at, grads)
            widths = [part.widths for part in parts if part.widths is not None]
            widest = None
            if widths:
                used = torch.cat(widths)
                widest = used.new_zeros(len(rows)).scatter_reduce_(0, at, used, "amax")
            table.touched = Touched(rows, leaf, widest)
