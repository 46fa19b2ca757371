"""What an Optuna user does today: every trial is a training from scratch. The measure of what a supernet saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from optuna_aes.budget import check_levels
from optuna_aes.strategies.base import Strategy


@dataclass(frozen=True)
class RetrainTPE(Strategy):
    """Optuna's multi-objective TPE; the first objective is the validation AUC of a model trained from scratch.

    Args:
        levels: Shares of the budget at which sizes are picked for retraining.
        prune: Whether a training ends early that a cheaper one has already left behind; see
            :class:`optuna_aes.pruners.FrontPruner`.
    """

    name: ClassVar[str] = "retrain-tpe"
    sampler: ClassVar[str] = "tpe"

    levels: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3)
    prune: bool = True

    def __post_init__(self) -> None:
        check_levels(self.levels)

    @property
    def budget_levels(self) -> tuple[float, ...]:
        """See :attr:`Strategy.budget_levels`."""
        return self.levels


@dataclass(frozen=True)
class RetrainNSGAII(RetrainTPE):
    """The same with Optuna's NSGA-II."""

    name: ClassVar[str] = "retrain-nsga2"
    sampler: ClassVar[str] = "nsga2"
