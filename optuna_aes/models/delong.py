"""How sure a difference of two AUCs on the same rows is (DeLong, DeLong, Clarke-Pearson, 1988, Biometrics 44)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AUCParts:
    """What each row contributes to an AUC.

    Args:
        positives: Share of negatives that each positive row is ranked above, shape ``(positives,)``.
        negatives: Share of positives that are ranked above each negative row, shape ``(negatives,)``.
    """

    positives: Floats
    negatives: Floats

    @classmethod
    def of(cls, scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> AUCParts:
        """The parts of one model's scores, by ranks, as Sun and Xu (2014) compute them."""
        from scipy.stats import rankdata  # 70 MiB, which a supernet's training does without

        high, low = scores[labels == 1], scores[labels == 0]
        ranks = rankdata(np.concatenate([high, low]))
        positives = (ranks[: len(high)] - rankdata(high)) / len(low)
        negatives = 1.0 - (ranks[len(high) :] - rankdata(low)) / len(high)
        return cls(positives, negatives)

    @property
    def auc(self) -> float:
        """The AUC itself."""
        return float(self.positives.mean())


def difference_error(a: AUCParts, b: AUCParts) -> float:
    """Standard error of the difference of two AUCs on the same rows; NaN where a class has one row only."""
    if min(len(a.positives), len(a.negatives)) < 2:
        return float("nan")
    positives, negatives = a.positives - b.positives, a.negatives - b.negatives
    variance = positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives)
    return float(np.sqrt(variance))
