"""Tables that are read and updated by the row: a step touches the rows of its batch and nothing else.

A lookup gathers the batch's distinct rows into a small leaf tensor and indexes that, so that autograd never makes a
gradient of the table's shape; :class:`RowAdam` then writes the same rows back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class BatchRows:
    """The distinct table rows of a batch.

    Args:
        rows: int64, shape ``(distinct,)``, ascending.
        inverse: int64, shape ``(batch, columns)``: the position in ``rows`` of every entry of the batch.
    """

    rows: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, ids: Tensor, total: int) -> BatchRows:
        """Finds the distinct rows of ``ids``.

        Args:
            ids: int64 row numbers, shape ``(batch, columns)``.
            total: Rows of the table; decides between marking (small tables) and sorting (large ones).
        """
        if total <= 4 * ids.numel():
            seen = torch.zeros(total, dtype=torch.bool, device=ids.device)
            seen[ids.reshape(-1)] = True
            rows = seen.nonzero().squeeze(1)
            position = torch.empty(total, dtype=torch.int64, device=ids.device)
            position[rows] = torch.arange(len(rows), device=ids.device)
            return cls(rows, position[ids])
        rows, inverse = torch.unique(ids, return_inverse=True)
        return cls(rows, inverse)


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
        leaf = self.weight[rows]
        if torch.is_grad_enabled():
            leaf.requires_grad_(True)
            self.touched = Touched(rows, leaf, widths)
        return leaf

    def lookup(self, ids: Tensor) -> Tensor:
        """Plain lookup without a gradient, shape ``(*ids.shape, dim)``."""
        return F.embedding(ids, self.weight)


@dataclass(frozen=True)
class Touched:
    """What one step read of a table: row numbers, the leaf that holds their gradient, columns in use."""

    rows: Tensor
    leaf: Tensor
    widths: Tensor | None


class RowAdam:
    """Adam on the touched rows of tables, with the second moment kept per row.

    Rows that a batch does not touch keep weight and moments as they are. The second moment of a row is the mean of its
    columns' squared gradients, as in row-wise Adagrad and Adam of FBGEMM and TorchRec, so a table of width d carries
    d + 1 optimiser values per row instead of 2d.

    Args:
        tables: The tables by name.
        lr: Learning rate.
        l2: Weight decay added to the gradient of touched rows.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
    """

    def __init__(
        self,
        tables: Mapping[str, RowTable],
        *,
        lr: float,
        l2: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.tables = dict(tables)
        self.lr = lr
        self.l2 = l2
        self.betas = betas
        self.eps = eps
        self.steps = 0
        self.mean = {n: torch.zeros_like(t.weight) for n, t in self.tables.items()}
        self.square = {n: t.weight.new_zeros(len(t.weight)) for n, t in self.tables.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Updates what the last forward pass touched, and forgets it."""
        self.steps += 1
        beta1, beta2 = self.betas
        scale = self.lr / (1 - beta1**self.steps)
        root = (1 - beta2**self.steps) ** 0.5
        for name, table in self.tables.items():
            touched, table.touched = table.touched, None
            if touched is None or touched.leaf.grad is None:
                continue
            rows, weight, grad = touched.rows, touched.leaf.detach(), touched.leaf.grad
            if self.l2:
                grad = grad.add(weight, alpha=self.l2)
            old_mean, old_square = self.mean[name][rows], self.square[name][rows]
            used = None if touched.widths is None else _columns_in_use(touched.widths, weight.shape[1])
            if used is not None:
                grad = grad * used
            mean = old_mean.lerp(grad, 1 - beta1)
            square = old_square.lerp(_mean_square(grad, touched.widths), 1 - beta2)
            update = mean / square.sqrt().div_(root).add_(self.eps).unsqueeze(1)
            if used is not None:  # columns not in use keep weight and moments
                update *= used
                mean = torch.where(used, mean, old_mean)
                square = torch.where(used[:, 0], square, old_square)
            table.weight[rows] = weight.add(update, alpha=-scale)
            self.mean[name][rows] = mean
            self.square[name][rows] = square

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The moments by name, for a checkpoint."""
        for name in self.tables:
            yield f"{name}.mean", self.mean[name]
            yield f"{name}.square", self.square[name]

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Puts back what :meth:`state` gave, after ``steps`` steps."""
        self.steps = steps
        for name in self.tables:
            self.mean[name].copy_(tensors[f"{name}.mean"])
            self.square[name].copy_(tensors[f"{name}.square"])


def _columns_in_use(widths: Tensor, dim: int) -> Tensor:
    return torch.arange(dim, device=widths.device) < widths.unsqueeze(1)


def _mean_square(grad: Tensor, widths: Tensor | None) -> Tensor:
    total = grad.square().sum(1)
    return total / grad.shape[1] if widths is None else total / widths.clamp(min=1)
