"""What a model says of rows, and how good that is."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from optuna_aes.data.dataset import Split
from optuna_aes.errors import InputError
from optuna_aes.models.feed import Feed
from optuna_aes.models.ranking import group_auc
from optuna_aes.models.train_options import DIVERGENCE_REMEDY


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts the model into evaluation mode for the block, so that scoring amid a training does not end its dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.no_grad()
def predict(model: nn.Module, split: Split, batch_size: int = 16384) -> npt.NDArray[np.float32]:
    """Click probabilities of every row, float32 of shape ``(rows,)``; at most ``batch_size`` rows at a time."""
    device = next(model.parameters()).device
    feed = Feed(split, device)
    # Pieces of equal length, as a supernet's batch norm cannot take a last row on its own.
    count = max(1, -(-len(feed) // batch_size))
    ends = np.cumsum([0, *(len(feed) // count + (piece < len(feed) % count) for piece in range(count))]).tolist()
    pieces = (slice(start, end) for start, end in itertools.pairwise(ends))
    with evaluating(model):
        return np.concatenate([torch.sigmoid(model(ids)).cpu().numpy() for ids, _ in feed.batches(pieces)])


def auc(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[Any]) -> float:
    """Area under the ROC curve; NaN where all labels are the same.

    Counted as :func:`optuna_aes.models.ranking.group_auc` does, for scikit-learn's checks its arguments for longer than it
    takes to score a subnet.

    Raises:
        InputError: If a probability is not a number.
    """
    if not np.isfinite(probabilities).all():
        raise InputError(f"the model's outputs are not finite: {DIVERGENCE_REMEDY}")
    return float(group_auc(torch.tensor(probabilities)[None], torch.tensor(labels))[0])


def logloss(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[Any]) -> float:
    """Mean binary cross-entropy."""
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    return float(F.binary_cross_entropy(torch.from_numpy(clipped), torch.from_numpy(labels.astype(np.float64))))
