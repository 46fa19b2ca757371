"""Gradients of the gates, and the batches they are taken on: what methods that move gates during the fit share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.dataset import Split
from optuna_aes.models.evaluation import evaluating
from optuna_aes.models.feed import Feed
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import gates


class Batches:
    """Random batches of a split, a function of the seed and the step, so that nothing of them has to be carried over.

    Args:
        split: Rows of a dataset.
        size: Rows of a batch, at most.
        seed: Of the draw.
        device: Where batches are wanted.
    """

    def __init__(self, split: Split, size: int, *, seed: int, device: torch.device) -> None:
        self.feed = Feed(split, device)
        self.size = min(size, len(self.feed))
        self.seed = seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Ids and labels for a step."""
        index = np.random.default_rng((self.seed, step, 7)).integers(len(self.feed), size=self.size)
        return self.feed.batch(torch.from_numpy(np.sort(index)))


def gate_gradient(supernet: Supernet, ids: Tensor, labels: Tensor) -> Tensor:
    """Σ_batch ∂L/∂ẽ_fk · e_fk of the mean loss of a batch, for closed gates too, shape ``(fields, D)``.

    Nothing else is touched: neither the weights' gradients, nor the random generators, as dropout is off.
    """
    embedding = gates(supernet)
    embedding.gate.requires_grad_()
    with evaluating(supernet):
        loss = F.binary_cross_entropy_with_logits(supernet(ids), labels)
        (gradient,) = torch.autograd.grad(loss, embedding.gate)
    embedding.gate.requires_grad_(False)
    forget(supernet)
    return gradient


def forget(supernet: Supernet) -> None:
    """Lets the tables forget what the last forward pass read: it is not the optimiser's to update."""
    embedding = gates(supernet)
    embedding.table.touched = None
    if embedding.linear is not None:
        embedding.linear.touched = None
