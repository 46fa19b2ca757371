"""Stage 2: sizes proposed by the sampler and scored in the supernet, trials of the study ``<name>``."""

from __future__ import annotations

import time

import numpy as np

from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.propose import Proposal, proposer_of, recorded
from optuna_aes.search.records import EXHAUSTED, scored
from optuna_aes.search.results import non_dominated
from optuna_aes.search.scratch import score_by_training
from optuna_aes.strategies.base import OneShot


def score(context: Context) -> None:
    """Scores groups of sizes until the study holds as many trials as are asked for, or there are no more to try."""
    if not isinstance(context.strategy, OneShot):
        score_by_training(context)
        return
    study, requested = context.studies.search, context.plan.trials
    trials = scored(study, context.budget)
    context.listener.stage("search", len(trials), requested)
    if len(trials) >= requested or study.user_attrs.get(EXHAUSTED):
        return
    supernet = load_supernet(context)
    scorer = context.one_shot.scorer(supernet, context.task.dataset, seed=context.seed)
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
                recorded(context, p, float(next(aucs)) if context.budget.fits(p.sizes) else None, seconds)
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
