"""What a search found, as plain values: the retrained points, their front, and how the search went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Point:
    """One choice of sizes, trained from scratch with one or more seeds. Metrics are means over the seeds.

    Args:
        trial: Number of the retrain trial whose weights ``export`` takes: of all seeds the one best on validation.
        sizes: Embedding size by field, or by ``field@cluster``.
        params: Parameters of the embedding tables, and of a router where the search counts it.
        projections: Parameters of the maps to the common width, counted apart.
        bytes: Bytes of tables and maps.
        feasible: Whether the point fits the budget.
        auc_valid: Validation AUC.
        auc_test: Test AUC.
        logloss_test: Test log loss.
        auc_test_std: Standard deviation of the test AUC between seeds; 0 with one seed.
        seeds: How many seeds.
        uniform: Whether all fields have one size. Reference points have, and a search may choose such sizes too.
        search_trial: Number of the search trial that proposed the sizes; None for reference points.
        auc_inherited: The score that the sizes had in the supernet; None for reference points.
        seconds: Seconds of one of its trainings, their mean: of computing on a CPU, by the clock on a GPU.
        router: Parameters of what sends each row to its cluster's model; 0 where there is one model for all.
    """

    trial: int
    sizes: dict[str, int]
    params: int
    projections: int
    bytes: int
    feasible: bool
    auc_valid: float
    auc_test: float
    logloss_test: float
    auc_test_std: float
    seeds: int
    uniform: bool
    search_trial: int | None = None
    auc_inherited: float | None = None
    seconds: float = 0.0
    router: int = 0


@dataclass(frozen=True)
class Result:
    """The retrained points of a study, and what they are to be measured against.

    Args:
        study: Name of the study.
        strategy: Name of the strategy.
        backbone: Name of the backbone.
        budget: ``{"params", "bytes"}`` of the budget.
        full: ``{"params", "bytes"}`` of the full-size tables.
        points: All retrained points, by parameters.
        facts: What is known of the data, such as ``bayes_auc`` of planted data.
        variant: What of the retraining was another than the search's: a backbone, or ``"inherited"`` weights; mostly empty.
    """

    study: str
    strategy: str
    backbone: str
    budget: dict[str, int]
    full: dict[str, int]
    points: tuple[Point, ...]
    facts: dict[str, Any]
    variant: str = ""

    @property
    def title(self) -> str:
        """The study's name, and its variant's."""
        return f"{self.study}@{self.variant}" if self.variant else self.study

    @property
    def front(self) -> tuple[Point, ...]:
        """The points inside the budget that no other such point beats in both test AUC and parameters.

        The front reports test results and decides nothing: see :attr:`best` for the choice.
        """
        inside = [p for p in self.points if p.feasible]
        keep = non_dominated([p.auc_test for p in inside], [p.params for p in inside])
        return tuple(inside[i] for i in keep)

    @property
    def best(self) -> Point | None:
        """The searched point inside the budget with the best validation AUC: what ``export`` takes."""
        inside = [p for p in self.points if p.feasible and p.search_trial is not None]
        return max(inside, key=lambda p: p.auc_valid, default=None)

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready object."""
        best = self.best
        return {
            "study": self.study,
            "strategy": self.strategy,
            "backbone": self.backbone,
            "variant": self.variant,
            "budget": self.budget,
            "full": self.full,
            "best": best.trial if best else None,
            "front": [asdict(p) for p in self.front],
            "points": [asdict(p) for p in self.points],
            "facts": self.facts,
        }


@dataclass(frozen=True)
class History:
    """How a search went.

    Args:
        numbers: Trial numbers of the scored subnets.
        aucs: Their inherited validation AUC.
        params: Their embedding parameters.
        epochs: Validation AUC of the supernet after each epoch.
        seconds: Seconds of the stages that are done, ``fit``, ``search`` and ``retrain``; see :attr:`Point.seconds`.
    """

    numbers: tuple[int, ...]
    aucs: tuple[float, ...]
    params: tuple[int, ...]
    epochs: tuple[float, ...]
    seconds: dict[str, float]


def non_dominated(values: npt.ArrayLike, costs: npt.ArrayLike) -> list[int]:
    """Positions of the points that no other beats in both value (higher) and cost (lower), by ascending cost.

    Of points equal in both, the first is kept.
    """
    worth, cost = np.asarray(values, dtype=np.float64), np.asarray(costs)
    order = np.lexsort((-worth, cost))  # stable
    best = np.maximum.accumulate(worth[order])
    before = np.concatenate([[-np.inf], best[:-1]])[: len(order)]
    return [int(i) for i in order[worth[order] > before]]
