"""One training by several processes, as ``torchrun`` starts them: each takes its share of the rows, all take the same steps.

Tables are whole in every process; of their gradients only the rows that a step touched are exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from optuna_aes.data.dataset import Split
from optuna_aes.models.model import dense_parameters, row_tables
from optuna_aes.models.rows import RowTable, Touched
from optuna_aes.models.step_hook import StepHook


def share_of(split: Split) -> Split:
    """This process's rows of a split: every n-th, and as many as each other process has, so that all take as many steps."""
    rank, processes = dist.get_rank(), dist.get_world_size()
    rows = len(split.labels) // processes * processes
    return Split(split.ids[rank:rows:processes], split.labels[rank:rows:processes])


class DataParallel(StepHook):
    """A step hook (:class:`optuna_aes.models.step_hook.StepHook`) that averages gradients over all processes.

    Where every process trains on its :func:`share_of` the rows, in batches of the wanted size divided by their number,
    and from the same initial weights, the weights stay the same in all of them.

    Args:
        model: The model in training.
    """

    def __init__(self, model: nn.Module) -> None:
        self.tables = row_tables(model)
        self.dense = dense_parameters(model)
        self.norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]

    @torch.no_grad()
    def after(self, step: int, losses: Tensor) -> None:
        """Averages what the backward pass left."""
        for parameter in self.dense.values():
            if parameter.grad is not None:
                _average(parameter.grad)
        for table in self.tables.values():
            if table.touched is not None and table.touched.leaf.grad is not None:
                table.touched = _united(table, table.touched)
        for buffer in self._statistics():
            _average(buffer)

    def scored(self, auc: float) -> float:
        """The first process's AUC for all: were they to differ in a last bit, one could end while the others wait for it."""
        device = next(iter(self.dense.values())).device
        first = torch.tensor(auc, dtype=torch.float64, device=device)
        dist.broadcast(first, src=0)
        return float(first)

    def _statistics(self) -> Iterator[Tensor]:
        for norm in self.norms:
            for buffer in (norm.running_mean, norm.running_var):
                if buffer is not None:
                    yield buffer


def _united(table: RowTable, mine: Touched) -> Touched:
    """The rows that any process touched, with the mean gradient; rows that this one did not touch add 0."""
    counts = [mine.rows.new_zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, mine.rows.new_tensor([len(mine.rows)]))
    longest = int(torch.cat(counts).max())
    padded = mine.rows.new_full((longest,), -1)
    padded[: len(mine.rows)] = mine.rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    rows = torch.unique(torch.cat(gathered))
    rows = rows[rows >= 0]
    leaf = table.weight[rows]
    grad = torch.zeros_like(leaf)
    assert mine.leaf.grad is not None
    grad[torch.searchsorted(rows, mine.rows)] = mine.leaf.grad
    _average(grad)
    leaf.grad = grad
    return Touched(rows, leaf, None)


def _average(tensor: Tensor) -> None:
    dist.all_reduce(tensor)
    tensor /= dist.get_world_size()
