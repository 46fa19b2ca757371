"""How far a search finds the same sizes again: with another seed of the search alone, and of supernet and search."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optuna_aes.space import Sizes


@dataclass(frozen=True)
class Agreement:
    """How alike the sizes of several seeds are.

    Args:
        same: Share of blocks that have the same size under two seeds, the mean over pairs of seeds.
        log2_std: Standard deviation between seeds of log2 of a block's size, the mean over blocks; a size of 0 counts as ½.
    """

    same: float
    log2_std: float

    @classmethod
    def of(cls, sizes: Sequence[Sizes]) -> Agreement | None:
        """Of what each seed found; None of fewer than two."""
        if len(sizes) < 2:
            return None
        table = np.array([list(s.values()) for s in sizes], dtype=np.float64)
        same = np.mean([(a == b).mean() for a, b in itertools.combinations(table, 2)])
        return cls(float(same), float(np.log2(np.maximum(table, 0.5)).std(0, ddof=1).mean()))

    @classmethod
    def mean(cls, found: Sequence[Agreement | None]) -> Agreement | None:
        """Of several budgets, the mean; None of none."""
        known = [one for one in found if one is not None]
        if not known:
            return None
        return cls(float(np.mean([a.same for a in known])), float(np.mean([a.log2_std for a in known])))


Picked = Mapping[float, Sequence[Sizes]]
"""By budget, as a share of the full size, what each seed picked."""


@dataclass(frozen=True)
class StabilityRow:
    """One strategy.

    Args:
        strategy: Its name.
        search: By budget, agreement of searches with different seeds on one supernet.
        whole: By budget, agreement of searches that each trained their supernet with a seed of its own.
        sizes: By budget, what the searches of ``whole`` picked.
    """

    strategy: str
    search: dict[float, Agreement | None]
    whole: dict[float, Agreement | None]
    sizes: dict[float, tuple[Sizes, ...]]

    @classmethod
    def of(cls, strategy: str, search: Picked, whole: Picked) -> StabilityRow:
        """From what was picked."""
        return cls(
            strategy,
            {share: Agreement.of(sizes) for share, sizes in search.items()},
            {share: Agreement.of(sizes) for share, sizes in whole.items()},
            {share: tuple(sizes) for share, sizes in whole.items()},
        )


@dataclass(frozen=True)
class Stability:
    """Strategies on one task.

    Args:
        shares: Budgets at which sizes were picked, as shares of the full-size parameters.
        seeds: How many seeds.
        rows: The strategies.
    """

    shares: tuple[float, ...]
    seeds: int
    rows: tuple[StabilityRow, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready object."""
        return asdict(self)
