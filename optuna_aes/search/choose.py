"""Which of the scored sizes are worth training from scratch: at every budget level the cheapest of the best."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from optuna_aes.models.delong import AUCParts, difference_error
from optuna_aes.models.supernet import SubnetScorer
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.records import Scored, record_picks, recorded_picks, scored

Parsimony = Callable[[Sequence[Scored]], Scored]

# Sizes this far behind the best are not worth a second look: no difference of that height is chance.
REACH = 1e-3
LOOK = 24


def chosen(context: Context) -> list[Scored]:
    """The scored sizes that the retrain stage trains; decided once for the same search and number, and recorded."""
    study, count = context.studies.retrain, context.plan.retrain
    trials = scored(context.studies.search, context.budget)
    picks = recorded_picks(study, trials, count)
    if picks is None:
        levels = [context.budget.level(share).params for share in context.strategy.policy.levels]
        picks = choose(trials, levels, count, _parsimony(context))
        record_picks(study, trials, count, picks)
    return picks


def choose(trials: Sequence[Scored], levels: Sequence[int], count: int, cheapest: Parsimony) -> list[Scored]:
    """Picks sizes along the budget.

    Each budget level names its pick. Where more are asked for than there are levels, budgets halfway between take their
    turn; where those name nothing new, the best-scored sizes that are left fill up.

    Args:
        trials: Scored sizes inside the budget.
        levels: Budget levels in parameters.
        count: How many to choose.
        cheapest: Of sizes ordered by score, the cheapest that is not surely worse than the first.
    """
    order = sorted(trials, key=lambda t: (-t.auc, t.params, t.number))
    picks: dict[tuple[int, ...], Scored] = {}
    for budget in _budgets(levels):
        inside = [t for t in order if t.params <= budget]
        if inside and len(picks) < count:
            pick = cheapest(inside)
            picks.setdefault(tuple(pick.sizes.values()), pick)
    for trial in order:
        if len(picks) < count:
            picks.setdefault(tuple(trial.sizes.values()), trial)
    return list(picks.values())


def _budgets(levels: Sequence[int]) -> Iterator[int]:
    """The levels, then the geometric means between neighbours, three times over."""
    known = sorted(set(levels), reverse=True)
    yield from known
    for _ in range(3):
        between = [int((a * b) ** 0.5) for a, b in itertools.pairwise(known)]
        yield from between
        known = sorted({*known, *between}, reverse=True)


def _parsimony(context: Context) -> Parsimony:
    """The one-standard-error rule (Breiman et al., 1984) on the supernet's scores.

    The best of hundreds of scores is the luckiest as much as the best: a field that is noise ends with a row of parameters
    because that once raised the AUC by a hundredth of a point. So the pick is the cheapest of those whose AUC is within
    one standard error of the difference (DeLong's, on the same validation rows) of the best.
    """
    scorer: SubnetScorer | None = None
    parts: dict[int, AUCParts] = {}

    def part(trial: Scored) -> AUCParts:
        nonlocal scorer
        if scorer is None:
            scorer = context.strategy.scorer(load_supernet(context), context.task.dataset, seed=context.seed)
        if trial.number not in parts:
            parts[trial.number] = scorer.parts(context.space.to_indices(trial.sizes)[np.newaxis])[0]
        return parts[trial.number]

    def cheapest(order: Sequence[Scored]) -> Scored:
        best = order[0]
        near = [t for t in order if best.auc - t.auc < REACH and t.params < best.params][:LOOK]
        for trial in sorted(near, key=lambda t: t.params):
            if best.auc - trial.auc <= difference_error(part(best), part(trial)):
                return trial
        return best

    return cheapest
