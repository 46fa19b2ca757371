"""Optimisers that update the rows of a table that a batch touched, and leave all others as they are.

Both keep one second moment a row, the mean of its columns' squared gradients, as FBGEMM and TorchRec do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from optuna_aes.models.rows import RowTable, Touched


def adam_change(
    mean: Tensor,
    square: Tensor,
    grad: Tensor,
    numbers: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    *,
    row_wise: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Adam's step, in the words that a compiler makes one loop of: what to take away, and the new moments.

    Args:
        mean: First moment.
        square: Second moment; one number a row if ``row_wise``.
        grad: Gradient, shaped as ``mean``.
        numbers: What changes with every step, learning rate and root of the second moment's correction: as a tensor, for a
            new number would be compiled anew.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: What is added to the root.
        row_wise: Whether a row has one second moment, of the mean of its squared gradients.
    """
    mean = mean.lerp(grad, 1 - beta1)
    square = square.lerp(grad.square().mean(1) if row_wise else grad.square(), 1 - beta2)
    root = square.sqrt() / numbers[1] + eps
    return numbers[0] * mean / (root.unsqueeze(1) if row_wise else root), mean, square


def _adam_rows(
    weight: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor,
    leaf: Tensor,
    grad: Tensor,
    numbers: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """What :class:`RowAdam` does to whole rows."""
    change, mean[rows], square[rows] = adam_change(
        mean[rows], square[rows], grad, numbers, beta1, beta2, eps, row_wise=True
    )
    weight[rows] = leaf - change


def _adagrad_rows(
    weight: Tensor, square: Tensor, rows: Tensor, leaf: Tensor, grad: Tensor, numbers: Tensor, eps: float
) -> None:
    """What :class:`RowAdagrad` does to whole rows."""
    new_square = square[rows] + grad.square().mean(1)
    weight[rows] = leaf - numbers[0] * grad / (new_square.sqrt() + eps).unsqueeze(1)
    square[rows] = new_square


class RowOptimizer(ABC):
    """What they have in common.

    Args:
        tables: The tables by name.
        lr: Learning rate.
        l2: Weight decay added to the gradient of touched rows.
        eps: Added to the root of the second moment.
    """

    # Rows of a table from which on one pass over memory saves more than the call of compiled code costs.
    FUSED_FROM: ClassVar[int] = 50_000

    # What ``_update`` does where all columns are in use, in words that a compiler makes one loop of.
    whole_rows: ClassVar[Callable[..., None]]

    def __init__(self, tables: Mapping[str, RowTable], *, lr: float, l2: float = 0.0, eps: float = 1e-8) -> None:
        self.tables = dict(tables)
        self.lr = lr
        self.l2 = l2
        self.eps = eps
        self.steps = 0
        self.fused: Callable[..., None] | None = None
        self.square = {n: untouched(t.weight.shape[:1], t.weight.device) for n, t in self.tables.items()}

    @torch.no_grad()
    def step(self) -> None:
        """Updates what the last forward pass touched, and forgets it."""
        numbers = self.corrections()
        for name, table in self.tables.items():
            touched, table.touched = table.touched, None
            if touched is None or touched.leaf.grad is None:
                continue
            grad = touched.leaf.grad
            if self.l2:
                grad = grad.add(touched.leaf.detach(), alpha=self.l2)
            if touched.widths is None and self.fused is not None and len(table.weight) >= self.FUSED_FROM:
                state = (table.weight, *self.moments(name).values())
                self.fused(*state, touched.rows, touched.leaf.detach(), grad, grad.new_tensor(numbers), *self.constants)
            else:
                self._update(name, touched, grad, *numbers)

    @property
    @abstractmethod
    def constants(self) -> tuple[float, ...]:
        """Numbers that no step changes, as the compiled update takes them."""

    def corrections(self) -> tuple[float, ...]:
        """Begins a step; gives the numbers that change with it, the learning rate first."""
        self.steps += 1
        return (self.lr,)

    @abstractmethod
    def _update(self, name: str, touched: Touched, grad: Tensor, *numbers: float) -> None:
        """Updates the rows that a step touched of a table."""

    def compile(self) -> None:
        """Has the update of whole rows compiled into one pass over them."""
        self.fused = torch.compile(self.whole_rows, dynamic=True)

    def moments(self, name: str) -> dict[str, Tensor]:
        """What is kept of a table, by name."""
        return {"square": self.square[name]}

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The moments by name, for a checkpoint."""
        for table in self.tables:
            yield from ((f"{table}.{name}", moment) for name, moment in self.moments(table).items())

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Puts back what :meth:`state` gave, after ``steps`` steps."""
        self.steps = steps
        for name, moment in self.state():
            moment.copy_(tensors[name])


class RowAdam(RowOptimizer):
    """Adam: a table of width d carries d + 1 optimiser values a row instead of 2d.

    Args:
        tables: The tables by name.
        lr: Learning rate.
        l2: Weight decay added to the gradient of touched rows.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
    """

    whole_rows = staticmethod(_adam_rows)

    def __init__(
        self,
        tables: Mapping[str, RowTable],
        *,
        lr: float,
        l2: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(tables, lr=lr, l2=l2, eps=eps)
        self.betas = betas
        self.mean = {n: untouched(t.weight.shape, t.weight.device) for n, t in self.tables.items()}

    @property
    def constants(self) -> tuple[float, ...]:
        """Decay of the moments, and eps."""
        return (*self.betas, self.eps)

    def corrections(self) -> tuple[float, float]:
        """The learning rate and the root of the second moment's correction: both begin too small."""
        (lr,) = super().corrections()
        beta1, beta2 = self.betas
        return lr / (1 - beta1**self.steps), (1 - beta2**self.steps) ** 0.5

    def moments(self, name: str) -> dict[str, Tensor]:
        """Both moments."""
        return {"mean": self.mean[name], **super().moments(name)}

    def _update(self, name: str, touched: Touched, grad: Tensor, *numbers: float) -> None:
        scale, root = numbers
        weight, mean, square, rows = self.tables[name].weight, self.mean[name], self.square[name], touched.rows
        old_mean, old_square = mean.index_select(0, rows), square.index_select(0, rows)
        used = None if touched.widths is None else _columns_in_use(touched.widths, weight.shape[1])
        if used is not None:
            grad = grad * used
        new_mean = old_mean.lerp(grad, 1 - self.betas[0])
        new_square = old_square.lerp(_mean_square(grad, touched.widths), 1 - self.betas[1])
        update = new_mean / new_square.sqrt().div_(root).add_(self.eps).unsqueeze(1)
        if used is not None:  # columns not in use keep weight and moments
            update *= used
            new_mean = torch.where(used, new_mean, old_mean)
            new_square = torch.where(used[:, 0], new_square, old_square)
        weight.index_copy_(0, rows, touched.leaf.detach().add(update, alpha=-scale))
        mean.index_copy_(0, rows, new_mean)
        square.index_copy_(0, rows, new_square)


class RowAdagrad(RowOptimizer):
    """Row-wise Adagrad (Duchi, Hazan, Singer, 2011): one optimiser value a row, and half of what Adam reads and writes.

    Its steps become shorter and shorter, so it wants a larger learning rate.
    """

    whole_rows = staticmethod(_adagrad_rows)

    @property
    def constants(self) -> tuple[float, ...]:
        """Eps alone."""
        return (self.eps,)

    def _update(self, name: str, touched: Touched, grad: Tensor, *numbers: float) -> None:
        (lr,) = numbers
        weight, square, rows = self.tables[name].weight, self.square[name], touched.rows
        if touched.widths is not None:
            grad = grad * _columns_in_use(touched.widths, weight.shape[1])
        new_square = square.index_select(0, rows).add_(_mean_square(grad, touched.widths))
        update = grad / new_square.sqrt().add_(self.eps).unsqueeze(1)
        weight.index_copy_(0, rows, touched.leaf.detach().add(update, alpha=-lr))
        square.index_copy_(0, rows, new_square)


ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {"adam": RowAdam, "adagrad": RowAdagrad}


def untouched(shape: torch.Size, device: torch.device) -> Tensor:
    """float32 zeros that take no memory before they are written to, where the system gives zeroed pages on demand."""
    return (
        torch.from_numpy(np.zeros(shape, dtype=np.float32))
        if device.type == "cpu"
        else torch.zeros(shape, device=device)
    )


def _columns_in_use(widths: Tensor, dim: int) -> Tensor:
    return torch.arange(dim, device=widths.device) < widths.unsqueeze(1)


def _mean_square(grad: Tensor, widths: Tensor | None) -> Tensor:
    total = grad.square().sum(1)
    return total / grad.shape[1] if widths is None else total / widths.clamp(min=1)
