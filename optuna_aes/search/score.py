"""Stage 2: sizes proposed by the sampler and scored in the supernet, trials of the study ``<name>``."""

from __future__ import annotations

import time

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import CONSTRAINT
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.propose import Proposal, proposer_of
from optuna_aes.search.records import EXHAUSTED, SECONDS, scored
from optuna_aes.search.results import non_dominated


def score(context: Context) -> None:
    """Scores groups of sizes until the study holds as many trials as are asked for, or there are no more to try."""
    study, requested = context.studies.search, context.plan.trials
    trials = scored(study, context.budget)
    context.listener.stage("search", len(trials), requested)
    if len(trials) >= requested or study.user_attrs.get(EXHAUSTED):
        return
    supernet = load_supernet(context)
    scorer = context.strategy.scorer(supernet, context.task.dataset, seed=context.seed)
    propose = proposer_of(context, supernet)
    while len(trials) < requested:
        started = time.perf_counter()
        proposals = propose(study, len(study.get_trials(deepcopy=False)))
        if not proposals:
            study.set_user_attr(EXHAUSTED, True)
            return
        proposals = _first(proposals, requested - len(trials), context)
        inside = [p.sizes for p in proposals if context.budget.fits(p.sizes)]
        aucs = iter(scorer(np.array([context.space.to_indices(sizes) for sizes in inside])) if inside else ())
        seconds = (time.perf_counter() - started) / len(proposals)
        study.add_trials(
            [
                _trial(context, p, float(next(aucs)) if context.budget.fits(p.sizes) else None, seconds)
                for p in proposals
            ]
        )
        trials = scored(study, context.budget)
        front = non_dominated([t.auc for t in trials], [t.params for t in trials])
        context.listener.scored(len(trials), requested, max((t.auc for t in trials), default=0.0), len(front))


def _first(proposals: list[Proposal], count: int, context: Context) -> list[Proposal]:
    """The proposals up to the one that is the last to be scored."""
    hits = np.cumsum([context.budget.fits(p.sizes) for p in proposals])
    return proposals[: int(np.searchsorted(hits, count)) + 1]


def _trial(context: Context, proposal: Proposal, auc: float | None, seconds: float) -> FrozenTrial:
    """A finished trial, or a pruned one where the sizes are over budget and have no score."""
    sizes = proposal.sizes
    return optuna.create_trial(
        state=TrialState.PRUNED if auc is None else TrialState.COMPLETE,
        values=None if auc is None else [auc, float(context.space.cost(sizes).params)],
        params=context.space.to_params(sizes),
        distributions=dict(context.space.distributions()),
        constraints={CONSTRAINT: context.budget.violation(sizes)},
        user_attrs={SECONDS: round(seconds, 6)},
        system_attrs=dict(proposal.system_attrs),
    )
