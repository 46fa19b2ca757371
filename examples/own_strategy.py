"""A strategy of your own: one class in one file.

    PYTHONPATH=examples optuna-aes search clicks.csv --label click --strategy own_strategy:Frequent --set keep=0.5

This one prunes columns like ``magnitude`` does, but measures a column on the rows that training data hits: a value that
is seen a thousand times counts a thousand times. All else, the stages, the samplers, resuming, the report, is inherited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from optuna_aes.data import Dataset
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import Pruning, field_rows, gates


@dataclass(frozen=True)
class Frequent(Pruning):
    """Columns are worth their mean square over training rows, less a price of memory.

    Args:
        keep: Weight of the memory price: 0 for none.
    """

    name: ClassVar[str] = "frequent"

    keep: float = 0.5

    @torch.no_grad()
    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> torch.Tensor:
        """What every column is worth, shape ``(fields, D)``."""
        embedding = gates(supernet)
        total = torch.zeros_like(embedding.importance)
        ids = torch.from_numpy(dataset.train.ids[:100_000])
        for part in ids.split(10_000):
            (values,) = embedding.bank(part)  # shape (rows, fields, D)
            total += values.square().sum(0)
        return total / field_rows(embedding).unsqueeze(1) ** self.keep
