"""What a strategy is: which sampler searches, and for most of them how a supernet is made, trained and scored.

A strategy of one's own is a frozen dataclass that derives from :class:`OneShot`, or from one of ours; the command line
takes it as ``--strategy module:Class``, and its fields as ``--set name=value``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset, Schema
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.space import EmbeddingSpace

if TYPE_CHECKING:
    from typing_extensions import Self


class Strategy(ABC):
    """A way to search sizes.

    Subclasses are frozen dataclasses: their fields are the strategy's options, and are stored with the study.
    """

    name: ClassVar[str]
    """The name in studies and reports."""

    sampler: ClassVar[str] = "path"
    """Who proposes sizes: ``"adass"``, ``"path"`` (see :meth:`OneShot.path`), or Optuna's ``"tpe"``, ``"nsga2"``, ``"gp"``."""

    every_size: ClassVar[bool] = False
    """Whether the method can take every whole number up to D for a size, where no candidates are given."""

    trims: ClassVar[bool] = False
    """Whether picks may lose tables that the supernet cannot tell from nothing, though no trial had those sizes."""

    @property
    @abstractmethod
    def budget_levels(self) -> tuple[float, ...]:
        """Shares of the budget at which sizes are picked for retraining."""

    @property
    def horizon(self) -> int | None:
        """The trials along which it anneals, if it does."""
        return None

    @property
    def race(self) -> float:
        """Share of the validation rows on which subnets are scored first, as :mod:`optuna_aes.models.racing`; 0 for all."""
        return 0.0

    @property
    def prune(self) -> bool:
        """Whether a trial that trains from scratch ends early where a cheaper one has already left it behind."""
        return False

    def partition(self, dataset: Dataset) -> Partition | None:
        """Blocks within and over fields that have a size each, a function of the dataset; None for a size per field."""
        return None

    def planned(self, trials: int) -> Self:
        """The strategy for a search of so many trials; as it is unless it anneals along them."""
        return self

    def space(self, fields: EmbeddingSpace) -> EmbeddingSpace:
        """What its trials choose: a size for every field of the task, unless it says otherwise."""
        return fields

    def model(
        self,
        schema: Schema,
        sizes: Mapping[str, int],
        *,
        dim: int,
        options: ModelOptions,
        supernet: Callable[[], Supernet],
        seed: int = 0,
    ) -> nn.Module:
        """The untrained model of a trial's sizes.

        Args:
            schema: The dataset's fields.
            sizes: Size of every block of :meth:`space`.
            dim: The common width D.
            options: Backbone and the rest of the model.
            supernet: Gives the trained supernet, for models that take something of it.
            seed: Seed of the initial values.
        """
        return CTRModel(schema, sizes, dim=dim, options=options, seed=seed)


class OneShot(Strategy):
    """Fits a supernet once and scores many choices of sizes with its weights."""

    @property
    def fit_settings(self) -> dict[str, Any]:
        """What of the strategy its trained supernet depends on: searches that agree in it can share one."""
        return {"name": self.name, **vars(self)}

    @property
    def table_per_field(self) -> bool:
        """Whether the supernet has one table for all candidates of a field."""
        return True

    @property
    def normalises(self) -> bool:
        """Whether the supernet normalises over batches, which a batch of one row does not allow."""
        return False

    @abstractmethod
    def supernet(self, schema: Schema, candidates: Sequence[int], *, model: ModelOptions, seed: int = 0) -> Supernet:
        """The untrained supernet.

        A strategy whose :meth:`partition` gives blocks is given them too, as ``partition``.
        """

    @abstractmethod
    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """The training of a supernet."""

    def finish(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> None:
        """Works out what the search needs of a trained supernet, into its buffers; they are stored with its weights."""

    @abstractmethod
    def scorer(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> SubnetScorer:
        """Scores subnets of a trained supernet on validation rows."""

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """The choices of sizes that a strategy with a path can take.

        Returns:
            Positions among the candidates, int64 of shape ``(points, blocks of the space)``.
        """
        raise NotImplementedError(f"{type(self).__name__} searches by {self.sampler!r}, not along a path")
