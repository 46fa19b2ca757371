"""Pruning by magnitude: train at full size, drop the smallest columns, train again.

The baseline that a public benchmark of light embeddings finds hard to beat (Hung Vinh Tran, Tong Chen, Quoc Viet Hung
Nguyen, Zi Huang, Lizhen Cui, Hongzhi Yin, 2024, arXiv 2406.17335), there with single weights. Pruning whole columns, so
that an ordinary table can hold what is left, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import Pruning, field_rows, gates


@dataclass(frozen=True)
class Magnitude(Pruning):
    """Columns are worth their norm.

    Args:
        price: The norm is divided by (rows of the field's table) ** ``price``: 0.5, the default, ranks by root mean
            square, so that a column is worth what it has per parameter; 0 ranks by norm and favours large tables.
        levels: See :class:`Pruning`.
        score_rows: See :class:`Pruning`.
    """

    name: ClassVar[str] = "magnitude"

    price: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_price(self.price)

    @torch.no_grad()
    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> Tensor:
        """See :class:`Pruning`."""
        embedding = gates(supernet)
        rows = field_rows(embedding)
        squares = embedding.table.weight.square()
        total = torch.stack([part.sum(0) for part in torch.split(squares, [int(n) for n in rows.tolist()])])
        return total.sqrt() / rows.unsqueeze(1) ** self.price


def check_price(price: float) -> None:
    """Refuses a price that would favour large tables beyond their size.

    Raises:
        InputError: If it is negative, or no number.
    """
    if not 0 <= price < float("inf"):
        raise InputError(f"price={price} is out of range: give 0 or more")
