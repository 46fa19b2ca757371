"""Sizes by a rule of one parameter, scored in AdaS&S's supernet: one size for all, and sizes by cardinality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import InputError
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.adass.strategy import AdaSS


@dataclass(frozen=True)
class Uniform(AdaSS):
    """One size for all fields: every candidate is a point."""

    name: ClassVar[str] = "uniform"
    sampler: ClassVar[str] = "path"
    trims: ClassVar[bool] = False

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """Every candidate, for all fields."""
        embedding = supernet.embedding
        return np.repeat(np.arange(len(embedding.candidates))[:, None], embedding.blocks, axis=1)


@dataclass(frozen=True)
class MDE(AdaSS):
    """Mixed-dimension embeddings: size ∝ cardinality ** −alpha (Ginart et al., 2019, arXiv 1909.11810).

    The paper takes popularity for the inverse of a field's cardinality, and rounds to powers of two; we round to the
    nearest candidate. The factor in front is the point on the path.

    Args:
        alpha: How much smaller large fields are; 0 is one size for all.
    """

    name: ClassVar[str] = "mde"
    sampler: ClassVar[str] = "path"
    trims: ClassVar[bool] = False

    alpha: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.alpha <= 4:
            raise InputError(f"alpha={self.alpha} is out of range: give 0 to 4")

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """Sizes from the smallest candidate for all to the largest for all, as the factor grows."""
        embedding = supernet.embedding
        candidates = np.array(embedding.candidates, dtype=np.float64)
        wish = np.array(embedding.block_rows, dtype=np.float64) ** -self.alpha
        # A field's size changes where the factor times its wish crosses the middle between two candidates.
        borders = (candidates[1:] + candidates[:-1]) / 2
        factors = np.unique((borders[None, :] / wish[:, None]).ravel())
        sizes = np.concatenate([[0.0], factors])[:, None] * wish[None, :] * (1 + 1e-9)
        return np.unique(np.searchsorted(borders, sizes, side="right"), axis=0).astype(np.int64)
