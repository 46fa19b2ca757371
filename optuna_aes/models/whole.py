"""Small tables in a compiled training: read and updated as a whole, where finding a batch's rows would cost more.

Lookup, backbone and loss are then one compiled pass, the tables' gradients have the tables' shape, and one compiled loop
updates what the batch touched, and the backbone with it. What comes out is what
:class:`optuna_aes.models.row_optimizers.RowAdam` and torch's Adam make of the same steps, but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.compiled import compiled, draws_on_cpu
from optuna_aes.models.embedding import MixedEmbedding
from optuna_aes.models.model import CTRModel
from optuna_aes.models.precision import logits
from optuna_aes.models.row_optimizers import RowAdam, adam_change


@dataclass(frozen=True)
class Moments:
    """A tensor in training with its moments.

    Args:
        weight: Of any shape.
        mean: The first moment, of the same.
        square: The second, of the same, or one number a row.
        start: Of a table, where its rows begin among all tables' rows; None for a parameter that every batch uses.
    """

    weight: Tensor
    mean: Tensor
    square: Tensor
    start: int | None = None


class WholeTables:
    """The training step of a model with small tables.

    Args:
        model: Whose step it is; one that :meth:`suits`.
        rows: The optimiser of its tables.
        dense: The optimiser of everything else, with the same learning rate.
        batch_size: Rows of the batches that run compiled; others, such as an epoch's last one, would be compiled anew.
        amp: Whether the backbone computes in bfloat16.
    """

    def __init__(
        self, model: nn.Module, rows: RowAdam, dense: torch.optim.Adam, batch_size: int, *, amp: bool = False
    ) -> None:
        embedding = model.embedding
        assert isinstance(embedding, MixedEmbedding)
        self.model, self.rows, self.dense, self.batch_size, self.amp = model, rows, dense, batch_size, amp
        self.layout = embedding.layout
        starts = {
            id(embedding.tables[str(size)]): start
            for (size, _), start in zip(embedding.groups, embedding.starts, strict=True)
        }
        # That of first-order weights has a row for every value.
        self.starts = {name: starts.get(id(table), 0) for name, table in rows.tables.items()}
        self.tower = [parameter for group in dense.param_groups for parameter in group["params"]]
        # Every call has full batches, the same model in training mode, and all gradients.
        self.moments: list[Moments] = []
        self.fast = compiled(self._loss, guards=False)
        self.fast_update = compiled(_update, guards=False)

    @staticmethod
    def suits(model: nn.Module, batch_size: int) -> bool:
        """Whether a model's tables have no more rows than its batches have entries, and are on the CPU.

        Models that :func:`draws_on_cpu` are left out.
        """
        if draws_on_cpu(model):
            return False
        if not isinstance(model, CTRModel) or not isinstance(model.embedding, MixedEmbedding):
            return False
        layout = model.embedding.layout
        on_cpu = layout.column_offset.device.type == "cpu"
        return on_cpu and layout.total_rows <= batch_size * len(layout.column_offset)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Within the block lookups with a gradient give the tables one of their own shape."""
        self._set(True)
        try:
            yield
        finally:
            self._set(False)

    def _set(self, whole: bool) -> None:
        self.layout.whole = whole
        for table in self.rows.tables.values():
            table.weight.requires_grad_(whole)
            table.weight.grad = None
        self.moments = self._moments() if whole else []

    def _moments(self) -> list[Moments]:
        """Of the tables, and of the tower once its optimiser has some, which it makes at its first step."""
        state = self.dense.state
        tables = [
            Moments(table.weight, self.rows.mean[name], self.rows.square[name], self.starts[name])
            for name, table in self.rows.tables.items()
        ]
        if not all(state[p] for p in self.tower):
            return tables
        return tables + [Moments(p, state[p]["exp_avg"], state[p]["exp_avg_sq"]) for p in self.tower]

    def step(self, ids: Tensor, labels: Tensor) -> Tensor:
        """One training step; gives the batch's mean loss."""
        loss, seen = (self.fast if len(ids) == self.batch_size else self._loss)(ids, labels)
        loss.backward()
        self._update(seen)
        return loss.detach()

    def _loss(self, ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The batch's mean loss, and which rows of the tables it touches, bool of shape ``(rows,)``; None for all."""
        loss = F.binary_cross_entropy_with_logits(logits(self.model, ids, amp=self.amp), labels)
        if self.layout.every_row:
            return loss, None
        rows = self.layout.rows(ids).flatten().long()
        return loss, torch.zeros(self.layout.total_rows, dtype=torch.bool).index_fill(0, rows, True)

    @torch.no_grad()
    def _update(self, seen: Tensor | None) -> None:
        numbers = torch.tensor(self.rows.corrections())
        update = self.fast_update
        if len(self.moments) == len(self.rows.tables):
            update = _update
            self.dense.step()
        else:
            torch._foreach_add_([self.dense.state[p]["step"] for p in self.tower], 1)
        grads = [one.weight.grad for one in self.moments]
        update(self.moments, grads, seen, numbers, self.rows.l2, *self.rows.betas, self.rows.eps)
        for one in self.moments:
            one.weight.grad = None
        if update is _update:
            self.dense.zero_grad(set_to_none=True)
            self.moments = self._moments()


def _update(
    moments: Sequence[Moments],
    grads: Sequence[Tensor],
    seen: Tensor | None,
    numbers: Tensor,
    l2: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Adam on everything, compiled into one loop; ``numbers`` as in :func:`adam_change`."""
    for one, found in zip(moments, grads, strict=True):
        table = one.start is not None
        grad = found + l2 * one.weight if table and l2 else found
        change, mean, square = adam_change(one.mean, one.square, grad, numbers, beta1, beta2, eps, row_wise=table)
        weight = one.weight - change
        if one.start is not None and seen is not None:
            touched = seen[one.start : one.start + len(weight)]
            weight = torch.where(touched.unsqueeze(1), weight, one.weight)
            mean = torch.where(touched.unsqueeze(1), mean, one.mean)
            square = torch.where(touched, square, one.square)
        one.weight.copy_(weight)
        one.mean.copy_(mean)
        one.square.copy_(square)
