"""What a contestant of the training benchmark is, and the work that all of them do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from optuna_aes.data import Dataset

OnStep = Callable[[], None]
"""Called after every optimiser step; what it raises ends the training."""


@dataclass(frozen=True)
class Work:
    """The model and training that every contestant runs: Adam or what comes closest, no dropout, no batch norm, no decay.

    Args:
        dataset: Its training rows are trained on, in a new random order every epoch.
        backbone: ``"deepfm"`` or ``"mlp"``.
        batch_size: Rows of a step.
        threads: Of torch.
        seed: Of weights and order.
    """

    dataset: Dataset
    backbone: str = "deepfm"
    batch_size: int = 4096
    threads: int = 1
    seed: int = 0
    dim: int = 16
    hidden: tuple[int, ...] = (128, 128, 128)
    lr: float = 1e-3
    std: float = 0.01

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each field begins in a concatenated table; shape ``(fields + 1,)``, the last is the table's length."""
        return np.concatenate([[0], np.cumsum([f.cardinality for f in self.dataset.schema.fields])])


class Contestant(Protocol):
    """One way to train the work's model."""

    def train(self, on_step: OnStep) -> None:
        """Trains, epoch after epoch, until ``on_step`` raises."""

    def predict(self) -> npt.NDArray[np.floating]:
        """Probabilities of the test rows."""
