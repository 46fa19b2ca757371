"""Stage 2: sizes proposed by the sampler and scored in the supernet, trials of the study ``<name>``."""

from __future__ import annotations

import time

import numpy as np
import optuna
from optuna.trial import TrialState

from optuna_aes.budget import CONSTRAINT
from optuna_aes.samplers import AdaSSSampler
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.records import SECONDS, scored
from optuna_aes.search.results import non_dominated
from optuna_aes.space import Sizes


def sampler_of(context: Context) -> AdaSSSampler:
    """The sampler of the search."""
    return AdaSSSampler(context.space, context.budget, options=context.strategy.policy, seed=context.seed)


def score(context: Context) -> None:
    """Scores groups of sizes until the study holds as many trials as are asked for."""
    study, requested = context.studies.search, context.plan.trials
    trials = scored(study, context.budget)
    context.listener.stage("search", len(trials), requested)
    if len(trials) >= requested:
        return
    scorer = context.strategy.scorer(load_supernet(context), context.task.dataset, seed=context.seed)
    sampler = sampler_of(context)
    while len(trials) < requested:
        started = time.perf_counter()
        number = len(study.get_trials(deepcopy=False))
        proposals = sampler.propose(study, number)[: requested - len(trials)]
        aucs = scorer(np.array([context.space.to_indices(sizes) for sizes in proposals]))
        seconds = (time.perf_counter() - started) / len(proposals)
        study.add_trials([_trial(context, s, float(a), seconds) for s, a in zip(proposals, aucs, strict=True)])
        trials = scored(study, context.budget)
        front = non_dominated([t.auc for t in trials], [t.params for t in trials])
        context.listener.scored(len(trials), requested, max(t.auc for t in trials), len(front))


def _trial(context: Context, sizes: Sizes, auc: float, seconds: float) -> optuna.trial.FrozenTrial:
    cost = context.space.cost(sizes)
    return optuna.create_trial(
        state=TrialState.COMPLETE,
        values=[auc, float(cost.params)],
        params=context.space.to_params(sizes),
        distributions=dict(context.space.distributions()),
        constraints={CONSTRAINT: context.budget.violation(sizes)},
        user_attrs={SECONDS: round(seconds, 6)},
    )
