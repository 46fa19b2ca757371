"""Stage 2: sizes proposed by the sampler and scored in the supernet, trials of the study ``<name>``."""

from __future__ import annotations

import numpy as np

from optuna_aes.models.training import work_seconds
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.propose import Proposal, proposer_of, recorded
from optuna_aes.search.records import EXHAUSTED, scores
from optuna_aes.search.results import non_dominated
from optuna_aes.search.scratch import score_by_training
from optuna_aes.storage import add_trials
from optuna_aes.strategies.base import OneShot


def score(context: Context) -> None:
    """Scores groups of sizes until the study holds as many trials as are asked for, or there are no more to try."""
    if not isinstance(context.strategy, OneShot):
        score_by_training(context)
        return
    study, requested = context.studies.search, context.plan.trials
    known = scores(study, context.budget)
    context.listener.stage("search", len(known), requested)
    if len(known) >= requested or study.user_attrs.get(EXHAUSTED):
        return
    supernet = load_supernet(context)
    scorer = context.one_shot.scorer(supernet, context.task.dataset, seed=context.seed)
    propose = proposer_of(context, supernet)
    while len(known) < requested:
        started = work_seconds(context.device)
        proposals = propose(study, known.next_number)
        if not proposals:
            study.set_user_attr(EXHAUSTED, True)
            return
        proposals = _first(proposals, requested - len(known), context)
        inside = [p.sizes for p in proposals if context.budget.fits(p.sizes)]
        aucs = iter(scorer(np.array([context.space.to_indices(sizes) for sizes in inside])) if inside else ())
        seconds = (work_seconds(context.device) - started) / len(proposals)
        add_trials(
            study,
            [
                recorded(context, p, float(next(aucs)) if context.budget.fits(p.sizes) else None, seconds)
                for p in proposals
            ],
        )
        known = scores(study, context.budget)
        front = non_dominated(known.aucs, known.params)
        context.listener.scored(len(known), requested, float(known.aucs.max(initial=0.0)), len(front))


def _first(proposals: list[Proposal], count: int, context: Context) -> list[Proposal]:
    """The proposals up to the one that is the last to be scored."""
    hits = np.cumsum([context.budget.fits(p.sizes) for p in proposals])
    return proposals[: int(np.searchsorted(hits, count)) + 1]
