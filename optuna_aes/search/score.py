"""Stage 2: sizes proposed by the sampler and scored in the supernet, trials of the study ``<name>``.

Groups of trials are handed out: a worker lays out the next group under its own name, if it still is the next by then, scores
it and finishes it. So workers score different groups at the same time, and as many trials are scored as are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import optuna

from optuna_aes.models.racing import Known, Racer
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.training import work_seconds
from optuna_aes.samplers.trials import read_trials
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.propose import Proposal, Proposer, proposer_of, recorded
from optuna_aes.search.records import EXHAUSTED, ROWS, SECONDS, Scores, scores
from optuna_aes.search.results import non_dominated
from optuna_aes.search.scratch import score_by_training
from optuna_aes.search.studies import trials_of
from optuna_aes.search.work import MOST_FAILED, UNDONE, StageError, failed, reason_of
from optuna_aes.storage import Hold, Outcome, WorkQueue
from optuna_aes.strategies.base import OneShot

MOST_TAKEN = 16  # trials that others left which one worker takes at a time


def score(context: Context) -> None:
    """Scores groups of sizes until the study holds as many trials as are asked for, or there are no more to try.

    Raises:
        StageError: If scoring fails again and again.
    """
    if not isinstance(context.strategy, OneShot):
        score_by_training(context)
        return
    study = context.studies.search
    known, requested = scores(study, context.budget), context.plan.trials
    context.listener.stage("search", len(known), requested)
    if _done(context, known, requested):
        return
    supernet = load_supernet(context)
    scorer = _scorer(context, supernet)
    propose = proposer_of(context, supernet)
    queue, failed_before = WorkQueue(study), known.failed
    while not _done(context, known, requested):
        queue.reclaim()
        hold = queue.claim(MOST_TAKEN)  # what another worker gave back, or left
        if hold is None:
            hold = _next_group(context, queue, propose, known, requested)
        if hold is not None:
            _score(context, hold, scorer, known)
        elif known.pending:
            context.crew.wait(study, study.get_trials(deepcopy=False, states=UNDONE))
        before, known, requested = len(known), scores(study, context.budget), context.plan.trials
        if len(known) > before:  # by this worker or another
            _tell(context, known, requested)
        if known.failed - failed_before >= max(MOST_FAILED, len(known)):
            raise StageError(f"scoring fails again and again ({reason_of(study)})")


def _done(context: Context, known: Scores, requested: int) -> bool:
    """Whether as many trials as are asked for, or all that there can be, are scored, here and elsewhere."""
    if known.pending:
        return False
    return len(known) >= requested or bool(context.studies.search.user_attrs.get(EXHAUSTED))


def _next_group(context: Context, queue: WorkQueue, propose: Proposer, known: Scores, requested: int) -> Hold | None:
    """Lays out the next group for this worker; None where there is none to lay out, or another worker came first."""
    wanted = requested - len(known) - known.pending
    if wanted <= 0 or queue.study.user_attrs.get(EXHAUSTED):
        return None
    proposals = propose(queue.study, known.next_number)
    if not proposals:
        if known.pending == 0:
            queue.study.set_user_attr(EXHAUSTED, True)
        return None
    proposals = _first(proposals, wanted, context)
    return queue.hold([recorded(context, p) for p in proposals], first=known.next_number)


def _first(proposals: list[Proposal], count: int, context: Context) -> list[Proposal]:
    """The proposals up to the one that is the last to be scored."""
    hits = np.cumsum([context.budget.fits(p.sizes) for p in proposals])
    return proposals[: int(np.searchsorted(hits, count)) + 1]


Score = tuple[float, dict[str, int]]
"""An AUC, and what else is to be recorded of it: on how many rows a trial was scored, if not on all."""

Scorer = Callable[[npt.NDArray[np.int64], Scores], list[Score]]
"""Scores choices of shape ``(trials, blocks)``, of a search that knows the scores of others."""


def _scorer(context: Context, supernet: Supernet) -> Scorer:
    """What scores a group: all of it on all rows, or on a part of them first."""
    strategy, space = context.one_shot, context.space
    scorer = strategy.scorer(supernet, context.task.dataset, seed=context.seed)
    scorer.keep_embeddings()
    if not strategy.race:
        return lambda choices, known: [(float(auc), {}) for auc in scorer(choices)]
    smallest = context.budget.level(min(strategy.budget_levels)).params
    racer = Racer(scorer, strategy.race, box=(max(1, smallest // 2), context.budget.params), seed=context.seed)

    def race(choices: npt.NDArray[np.int64], known: Scores) -> list[Score]:
        others = Known(known.choices, known.params, known.aucs)
        aucs, rows = racer(choices, space.params_of(choices), others)
        return [
            (auc, {ROWS: used} if used < len(scorer.labels) else {})
            for auc, used in zip(aucs.tolist(), rows.tolist(), strict=True)
        ]

    return race


def _score(context: Context, hold: Hold, scorer: Scorer, known: Scores) -> None:
    """Scores what is held and finishes it; what cannot be scored goes back to the queue."""
    if not hold.trials:
        return
    study, started = context.studies.search, work_seconds(context.device)
    choices = _choices(context, hold)
    try:
        with hold.beating():
            found = _scores(scorer, choices, known)
        seconds = round((work_seconds(context.device) - started) / len(found), 6)
        params = context.space.params_of(choices)
        outcomes = {
            number: Outcome([score[0], float(cost)], attrs={SECONDS: seconds, **score[1]})
            for number, score, cost in zip(hold.numbers, found, params.tolist(), strict=True)
            if not isinstance(score, Exception)
        }
        finished = hold.finish(outcomes)
    except BaseException:  # Ctrl-C
        hold.release()
        raise
    if len(finished) < len(outcomes):
        lost = sorted(outcomes.keys() - set(finished))
        context.listener.note(f"trials {lost} of {study.study_name} were taken over by another worker: dropped here")
    for number, error in zip(hold.numbers, found, strict=True):
        if isinstance(error, Exception):
            attrs = trials_of(study, [number])[0].user_attrs
            failed(hold, number, error, attrs=attrs, crew=context.crew, pause=False)


def _choices(context: Context, hold: Hold) -> npt.NDArray[np.int64]:
    """The sizes that are held, shape ``(trials, blocks)``."""
    study, space = context.studies.search, context.space
    choices = read_trials(study, space).choices[hold.numbers]
    for at, trial_id in enumerate(hold.trials):
        if (choices[at] < 0).any():  # enqueued by hand: its sizes are not parameters yet
            choices[at] = space.to_indices(space.suggest(optuna.Trial(study, trial_id)))
    return choices


def _scores(scorer: Scorer, choices: npt.NDArray[np.int64], known: Scores) -> Sequence[Score | Exception]:
    """Score of each choice, or what went wrong: in halves, so that one that cannot be scored leaves the others alone."""
    try:
        return scorer(choices, known)
    except Exception as error:
        if len(choices) == 1:
            return [error]
    half = len(choices) // 2
    return [*_scores(scorer, choices[:half], known), *_scores(scorer, choices[half:], known)]


def _tell(context: Context, known: Scores, requested: int) -> None:
    front = non_dominated(known.aucs, known.params)
    best = float(known.aucs.max(initial=0.0))
    context.listener.scored(len(known), requested, best, len(front))
