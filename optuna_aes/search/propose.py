"""Who proposes the sizes of the search stage: our samplers, or one of Optuna's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import CONSTRAINT, MemoryBudget
from optuna_aes.errors import InputError
from optuna_aes.models.supernet import Supernet
from optuna_aes.samplers import AdaSSSampler, FrontPathSampler
from optuna_aes.search.context import Context
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.storage.queue import WORK
from optuna_aes.strategies.adass.strategy import AdaSS

GROUP = 8
"""Trials that are proposed, scored and recorded together, where the sampler does not say."""


@dataclass(frozen=True)
class Proposal:
    """Sizes for a trial, and what its sampler wants to find with it later."""

    sizes: Sizes
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


class Proposer(Protocol):
    """Gives the next group of trials their sizes, as a function of a study's trials."""

    def __call__(self, study: optuna.Study, number: int) -> list[Proposal]:
        """Proposals for trial ``number`` and those after it; none when there is nothing left to try."""


def proposer_of(context: Context, supernet: Supernet | None) -> Proposer:
    """The proposer that the strategy asks for.

    Args:
        context: The search.
        supernet: Its trained supernet, where it has one: the path of sizes is read off it.

    Raises:
        InputError: If it asks for one that does not exist.
    """
    strategy, space, budget = context.strategy, context.space, context.budget
    if strategy.sampler == "adass":
        assert isinstance(strategy, AdaSS)
        policy = AdaSSSampler(space, budget, options=strategy.policy, seed=context.seed)
        return lambda study, number: [Proposal(sizes) for sizes in policy.propose(study, number)]
    if strategy.sampler == "path" and supernet is not None:
        points = [space.from_indices(point) for point in context.one_shot.path(supernet)]
        along = FrontPathSampler(space, budget, points, seed=context.seed)
        return lambda study, number: [Proposal(sizes) for sizes in along.propose(study, GROUP)]
    if strategy.sampler in STOCK:
        group = GROUP if supernet is not None else 1
        return Stock(space, budget, strategy.sampler, seed=context.seed, group=group)
    known = ", ".join(("adass", "path", *STOCK))
    raise InputError(f"strategy {strategy.name!r} asks for sampler={strategy.sampler!r}: give one of {known}")


STOCK: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda seed: NSGAIISampler(seed=seed),
    "gp": lambda seed: GPSampler(seed=seed),
}

PROJECTED = ("gp",)
"""Samplers that read finished trials alone, and so never learn from what is over budget: nine of ten proposals were."""


class Stock:
    """One of Optuna's samplers, asked in a study in memory that holds copies of the real one's trials.

    Every suggestion of a sampler is a write to its study; in memory they cost nothing, and the real study gets a group's
    trials at once. What is over budget is proposed too: it is to be recorded as pruned, and never counts as scored. For
    samplers that cannot learn from it the nearest sizes inside the budget take its place. Sizes whose trial failed, which
    these samplers do not look at, are not proposed again.

    Args:
        space: What is searched.
        budget: What the sampler learns to keep to.
        name: Which sampler.
        seed: Of the sampler, together with the number of trials, so that a search taken up again does not repeat itself.
        group: How many proposals inside the budget are wanted at a time.
    """

    # Where a sampler has not found the budget yet, a group ends after so many proposals over it.
    MOST_MISSES = 50

    def __init__(
        self, space: EmbeddingSpace, budget: MemoryBudget, name: str, *, seed: int, group: int = GROUP
    ) -> None:
        self.space = space
        self.budget = budget
        self.make = STOCK[name]
        self.projects = name in PROJECTED
        self.seed = seed
        self.group = group

    def __call__(self, study: optuna.Study, number: int) -> list[Proposal]:
        """See :class:`Proposer`."""
        seed = int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])
        shadow = optuna.create_study(directions=study.directions, sampler=self.make(seed))
        shadow.add_trials(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))
        failures = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        failed = [t.params for t in failures if t.params.keys() == self.space.distributions().keys()]
        found: list[Proposal] = []
        hits = misses = 0
        while hits < self.group and misses < self.MOST_MISSES:
            trial = shadow.ask(dict(self.space.distributions()))
            sizes = self.space.from_params(trial.params)
            if self.projects:
                sizes = self.budget.project(sizes)
            if self.space.to_params(sizes) in failed:
                misses += 1
                shadow.tell(trial, state=TrialState.FAIL)
                continue
            fits = self.budget.fits(sizes)
            hits, misses = hits + fits, misses + (not fits)
            self.budget.record(trial, sizes)
            if not fits:
                shadow.tell(trial, state=TrialState.PRUNED)
            found.append(Proposal(sizes, _own(shadow._storage.get_trial(trial._trial_id))))
        return found


def recorded(context: Context, proposal: Proposal, *, state: TrialState = TrialState.RUNNING) -> FrozenTrial:
    """A proposal as a trial to lay out, or as a pruned one where the sizes are over budget and get no score.

    Args:
        context: The search.
        proposal: What is proposed.
        state: Running, for whoever lays it out; or waiting.
    """
    fits = context.budget.fits(proposal.sizes)
    return optuna.create_trial(
        state=state if fits else TrialState.PRUNED,
        params=context.space.to_params(proposal.sizes),
        distributions=dict(context.space.distributions()),
        constraints={CONSTRAINT: context.budget.violation(proposal.sizes)},
        user_attrs={WORK: True} if fits else {},
        system_attrs=dict(proposal.system_attrs),
    )


def _own(trial: FrozenTrial) -> dict[str, Any]:
    """What the sampler wrote to the trial; its constraints are written again by whoever records it."""
    return {key: value for key, value in trial.system_attrs.items() if "constraint" not in key}
