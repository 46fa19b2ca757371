"""One-shot saliency: what the loss of a trained model would lose with each column.

SSEDS: Liang Qu, Yonghong Ye, Ningzhi Tang, Lixin Zhang, Yuhui Shi, Hongzhi Yin, 2022, arXiv 2204.03281: gates of one on
every column of a pretrained model, one backward pass, columns kept by the size of their gates' gradients. The price per
row, and the mean of absolute gradients over batches in place of the gradient over all rows, which is near 0 at a minimum,
are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import evaluating
from optuna_aes.models.feed import Feed
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import Pruning, field_rows, gates
from optuna_aes.strategies.pruning.magnitude import check_price


@dataclass(frozen=True)
class Saliency(Pruning):
    """Columns are worth the gradient of their gates.

    Args:
        price: The gradient is divided by (rows of the field's table) ** ``price``.
        batches: Batches over which it is taken, of the training rows.
        batch_size: Rows of a batch.
        levels: See :class:`Pruning`.
        score_rows: See :class:`Pruning`.
    """

    name: ClassVar[str] = "saliency"

    price: float = 0.5
    batches: int = 32
    batch_size: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        check_price(self.price)
        for name in ("batches", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least 1")

    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> Tensor:
        """See :class:`Pruning`."""
        embedding = gates(supernet)
        feed = Feed(dataset.train, embedding.gate.device)
        order = np.random.default_rng((seed, 5)).permutation(len(feed))[: self.batches * self.batch_size]
        parts = np.array_split(order, max(1, round(len(order) / self.batch_size)))
        total = torch.zeros_like(embedding.gate)
        embedding.gate.requires_grad_()
        # In evaluation mode, as dropout would add its own noise to gradients that are small.
        with evaluating(supernet):
            for part in parts:
                ids, labels = feed.batch(torch.from_numpy(np.sort(part)))
                loss = F.binary_cross_entropy_with_logits(supernet(ids), labels)
                (gradient,) = torch.autograd.grad(loss, embedding.gate)
                total += gradient.abs()
        embedding.gate.requires_grad_(False)
        embedding.table.touched = None
        return total / len(parts) / field_rows(embedding).unsqueeze(1) ** self.price
