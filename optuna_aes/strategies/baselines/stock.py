"""The same supernet and the same number of scores, other proposals: random sizes, and Optuna's own samplers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from optuna_aes.strategies.adass.policy import PolicyOptions
from optuna_aes.strategies.adass.strategy import AdaSS


@dataclass(frozen=True)
class Random(AdaSS):
    """Feasible sizes at random: uniform draws, stepped down until they fit a budget level."""

    name: ClassVar[str] = "random"

    policy: PolicyOptions = field(default_factory=lambda: PolicyOptions(estimator="random"))


@dataclass(frozen=True)
class TPE(AdaSS):
    """Optuna's multi-objective TPE, which learns the budget from the constraint (Watanabe, 2023, arXiv 2304.11127)."""

    name: ClassVar[str] = "tpe"
    sampler: ClassVar[str] = "tpe"


@dataclass(frozen=True)
class NSGAII(AdaSS):
    """Optuna's NSGA-II (Deb et al., 2002, doi 10.1109/4235.996017)."""

    name: ClassVar[str] = "nsga2"
    sampler: ClassVar[str] = "nsga2"


@dataclass(frozen=True)
class GP(AdaSS):
    """Optuna's Gaussian process sampler."""

    name: ClassVar[str] = "gp"
    sampler: ClassVar[str] = "gp"
