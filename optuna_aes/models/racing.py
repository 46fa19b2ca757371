"""First looks on parts of the rows: what seems to add nothing to the front there is not scored on the rest.

Ours; racing goes back to Maron and Moore (1993, Hoeffding races). The parts lie within each other and grow. A subnet's rival
is the best scored one that takes no more parameters. Both are scored on the same part of the rows, which cancels most of what
is chance in it, so the subnet's AUC is estimated by ``rival's AUC on all rows + difference on the part``. It goes on to the
next part, and at last to all rows, where that estimate would add ``WORTH`` of the area under the front or more.

What this can lose: let s be the standard error of the estimate (0.0016 with 3,125 of 50,000 rows of planted data, by
DeLong). A subnet whose AUC lies δ above the one that is worth ``WORTH`` is left out with probability Φ(−δ/s), so one in 44 at
δ = 2 s. Later ones mostly make up for it: ``studies/bench/racing.py`` measures what is lost of a whole search's front. An
estimate is recorded below its rival's AUC, so that it is never on the front, nor the best inside any budget. A policy learns
from estimates as from scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from optuna_aes.models.sharing import Paths
from optuna_aes.models.supernet import SubnetScorer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

WORTH = 5e-4
"""Share of the area under the front."""

GROWTH = 4
"""How many times the rows of one part the next one has, whose estimates are twice as sure."""


@dataclass(frozen=True)
class Known:
    """Subnets that were scored on all rows.

    Args:
        paths: Their candidate positions, shape ``(n, blocks)``.
        params: Their parameters, shape ``(n,)``.
        aucs: Their AUC, shape ``(n,)``.
    """

    paths: Paths
    params: Ints
    aucs: Floats

    def rival(self, params: int) -> int | None:
        """The best one with no more parameters, the first of equals; None where there is none."""
        within = np.flatnonzero(self.params <= params)
        return int(within[self.aucs[within].argmax()]) if len(within) else None

    def gain(self, params: int, auc: float, low: int, high: int) -> float:
        """What a point would add to the area under the front, as a share of it.

        The area is that above an AUC of 0.5, over the logarithm of parameters from ``low`` to ``high``.
        """
        order = np.argsort(self.params, kind="stable")
        best = np.concatenate([[0.5], np.maximum.accumulate(self.aucs[order])])
        ends = np.log(np.concatenate([[low], self.params[order].clip(low, high), [high]]))
        width, height = np.diff(ends), np.maximum(best, 0.5) - 0.5
        # Where the point counts: of every step of the front that part which is not below its own parameters.
        counts = ends[1:] - np.clip(np.log(max(params, 1)), ends[:-1], ends[1:])
        return float((counts * np.maximum(auc - 0.5 - height, 0)).sum() / max((width * height).sum(), 1e-12))


@dataclass(frozen=True)
class _Heat:
    """A part of the rows, and what subnets that others are compared with score on it.

    Args:
        scorer: Scores on the part.
        rivals: AUC by path.
    """

    scorer: SubnetScorer
    rivals: dict[bytes, float] = field(default_factory=dict)

    def rival(self, path: npt.NDArray[np.int64]) -> float:
        """A rival's AUC on the part."""
        key = path.tobytes()
        if key not in self.rivals:
            self.rivals[key] = float(self.scorer(path[np.newaxis])[0])
        return self.rivals[key]


class Racer:
    """Scores groups of subnets, each on parts of the rows first.

    Args:
        scorer: Scores on all rows.
        share: Which part of them comes first, in (0, 1).
        box: Parameters between which the area under the front counts.
        seed: Seed of the parts.
    """

    def __init__(self, scorer: SubnetScorer, share: float, *, box: tuple[int, int], seed: int = 0) -> None:
        self.box = box
        self.scorer = scorer
        self.heats = tuple(_Heat(scorer.part(part, seed=seed)) for part in parts_of(share))
        for heat in self.heats:
            heat.scorer.keep_embeddings()

    def __call__(self, paths: Paths, params: Ints, known: Known) -> tuple[Floats, Ints]:
        """Scores a group.

        Args:
            paths: Candidate positions, shape ``(paths, blocks)``.
            params: Parameters, shape ``(paths,)``.
            known: What they have to beat.

        Returns:
            AUC or its estimate, float64, and on how many rows it was scored, int64, both of shape ``(paths,)``.
        """
        # Whom each has to beat; one that takes fewer parameters than all before it has nobody, and is not raced.
        rivals = {i: rival for i, used in enumerate(params) if (rival := known.rival(int(used))) is not None}
        aucs, rows = np.full(len(paths), np.nan), np.full(len(paths), len(self.scorer.labels))
        for heat in self.heats:
            raced = [i for i in rivals if np.isnan(aucs[i])]
            for i, mine in zip(raced, heat.scorer(paths[raced]), strict=True):
                theirs = float(known.aucs[rivals[i]])
                estimate = theirs + mine - heat.rival(known.paths[rivals[i]])
                if known.gain(int(params[i]), estimate, *self.box) < WORTH:
                    aucs[i], rows[i] = min(estimate, np.nextafter(theirs, 0)), len(heat.scorer.labels)
        full = np.isnan(aucs)
        aucs[full] = self.scorer(paths[full])
        return aucs, rows


def parts_of(share: float) -> tuple[float, ...]:
    """Shares of the rows on which a race is held, ascending: each ``GROWTH`` times the one before, below a half.

    >>> parts_of(0.0625), parts_of(0.6)
    ((0.0625, 0.25), (0.6,))
    """
    following = GROWTH * share
    return (share, *parts_of(following)) if following < 0.5 else (share,)
