"""A little game of sizes that the tests of AdaS&S's sampler play."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_aes.budget import MemoryBudget
from optuna_aes.samplers import AdaSSSampler
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.strategies.adass.policy import PolicyOptions

SPACE = EmbeddingSpace({"user": 957, "item": 4082, "hour": 24, "shop": 300}, candidates=(0, 1, 2, 4, 8))
BUDGET = MemoryBudget(SPACE, fraction=0.3)
OPTIONS = PolicyOptions(group=4, horizon=60, levels=(1.0, 0.5))


def make(*, seed: int | None = 0, budget: MemoryBudget = BUDGET, **options: Any) -> AdaSSSampler:
    chosen = PolicyOptions(**{**vars(OPTIONS), **options})
    return AdaSSSampler(budget.space, budget, options=chosen, seed=seed)


def score(sizes: Sizes) -> float:
    """Worth of sizes: more is better, with diminishing returns; the item most."""
    worth = {"user": 0.02, "item": 0.03, "hour": 0.01, "shop": 0.005}
    return 0.7 + sum(worth[name] * (1 - 0.5**size) for name, size in sizes.items())


def objective(trial: optuna.Trial) -> tuple[float, float]:
    sizes = SPACE.suggest(trial)
    BUDGET.check(trial, sizes)
    return score(sizes), SPACE.cost(sizes).params


def new_study(sampler: BaseSampler, **given: Any) -> optuna.Study:
    return optuna.create_study(**{"directions": ["maximize", "minimize"], "sampler": sampler, **given})


def sizes_of(study: optuna.Study) -> list[Sizes]:
    return [SPACE.from_params(t.params) for t in study.trials]


def finished(
    sizes: Sizes,
    *,
    state: TrialState = TrialState.COMPLETE,
    values: Sequence[float] | None = None,
    space: EmbeddingSpace = SPACE,
) -> FrozenTrial:
    if values is None and state == TrialState.COMPLETE:
        values = (score(sizes), space.cost(sizes).params)
    return create_trial(
        state=state, values=values, params=space.to_params(sizes), distributions=dict(space.distributions())
    )


def a_search(trials: int, *, seed: int = 0) -> list[FrozenTrial]:
    study = new_study(make(seed=seed))
    study.optimize(objective, trials)
    return study.trials
