"""What all pruning strategies share: the masked supernet, its plain training, and the path by thresholds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optuna_aes.budget import check_levels
from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset, Schema
from optuna_aes.errors import InputError
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.base import OneShot
from optuna_aes.strategies.paths import threshold_path, to_candidates


@dataclass(frozen=True)
class Pruning(OneShot):
    """Trains all fields at full size and ranks their columns; every threshold on the rank is a choice of sizes.

    Args:
        levels: Shares of the budget at which sizes are picked for retraining.
        score_rows: Validation rows that score a choice of sizes, at most.

    Raises:
        InputError: If a value is out of range.
    """

    every_size: ClassVar[bool] = True

    levels: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3)
    score_rows: int = 50_000

    def __post_init__(self) -> None:
        check_levels(self.levels)
        if self.score_rows < 1:
            raise InputError(f"score_rows={self.score_rows} is out of range: give at least 1")

    @property
    def budget_levels(self) -> tuple[float, ...]:
        """See :attr:`Strategy.budget_levels`."""
        return self.levels

    def supernet(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        model: ModelOptions,
        seed: int = 0,
        partition: Partition | None = None,
    ) -> Supernet:
        """The untrained full-size model, with a gate on every column of every block."""
        return Supernet(schema, candidates, options=model, sharing="masked", seed=seed, partition=partition)

    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """An ordinary training at full size."""
        return Trainer(supernet, dataset.train, dataset.valid, options, seed=seed, device=device)

    def finish(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> None:
        """Ranks the columns of a trained supernet."""
        gates(supernet).importance.copy_(self.importance(supernet, dataset, seed=seed))

    @abstractmethod
    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> Tensor:
        """How much every column is worth, float of shape ``(fields, D)``; what is worth least goes first."""

    def scorer(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> SubnetScorer:
        """Scores the supernet with all but the most important columns of every field set to zero."""
        return SubnetScorer(supernet, dataset.valid, rows=self.score_rows, seed=seed)

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """Nested sizes by threshold, rounded down to the candidates where those leave sizes out."""
        sizes = threshold_path(gates(supernet).importance.cpu().numpy())
        return to_candidates(sizes, supernet.embedding.candidates)


def gates(supernet: Supernet) -> MaskedEmbedding:
    """The supernet's embedding, of which pruning asks for its gates."""
    embedding = supernet.embedding
    assert isinstance(embedding, MaskedEmbedding)
    return embedding


def field_rows(embedding: MaskedEmbedding) -> Tensor:
    """Rows of every field's table, float of shape ``(fields,)``."""
    return embedding.importance.new_tensor(embedding.layout.field_rows)
