"""Which of the scored sizes are worth training from scratch: at every budget level the best, without its waste."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from optuna_aes.models.delong import AUCParts, difference_error
from optuna_aes.models.supernet import SubnetScorer
from optuna_aes.search.context import Context
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.records import ROWS, Picks, Scored, decision_of, recorded_picks, scored
from optuna_aes.search.settings import Plan
from optuna_aes.space import Sizes
from optuna_aes.storage import WorkQueue, read_user_attr

Rule = Callable[[Sequence[Scored]], Scored]


def chosen(context: Context, plan: Plan) -> Picks:
    """The scored sizes that the retrain stage trains; decided once for the same search and plan, and recorded."""
    study = context.studies.picks
    trials = scored(context.studies.search, context.budget)
    while (picks := recorded_picks(study, trials, plan)) is None:
        shares = plan.picks_at or context.strategy.budget_levels
        levels = [context.budget.level(share).params for share in shares]
        rule = _Trim(context) if context.strategy.trims else _first
        found = choose(_on_all_rows(context, trials), levels, plan.picks, rule, fill=plan.picks_at is None)
        # Of several workers, on machines that compute a little differently, the first one decides for all.
        WorkQueue(study).add([], decision=decision_of(study, trials, plan, found))
    return picks


def _on_all_rows(context: Context, trials: Sequence[Scored]) -> Sequence[Scored]:
    """The trials whose score is not an estimate; see :mod:`optuna_aes.models.racing`."""
    if not context.strategy.race:
        return trials
    estimated = read_user_attr(context.studies.search, ROWS)
    return [trial for trial in trials if trial.number not in estimated]


def choose(trials: Sequence[Scored], levels: Sequence[int], count: int, rule: Rule, *, fill: bool = True) -> Picks:
    """Picks sizes along the budget.

    Each budget level names its pick. Where more are asked for than there are levels, budgets halfway between take their
    turn; where those name nothing new, the best-scored sizes that are left fill up.

    Args:
        trials: Scored sizes inside the budget.
        levels: Budget levels in parameters.
        count: How many to choose, at most.
        rule: Makes a pick of the sizes inside a budget, ordered by score.
        fill: Whether there is more to pick than one for each level. Without it, two levels that name the same sizes leave
            one pick less: more picks than others have would be more chances, and not at the budgets that are compared.
    """
    order = sorted(trials, key=lambda t: (-t.auc, t.params, t.number))
    picks: dict[tuple[int, ...], Scored] = {}
    named: dict[int, int] = {}
    for budget in _budgets(levels) if fill else sorted(set(levels), reverse=True):
        inside = [t for t in order if t.params <= budget]
        if inside and len(picks) < count:
            pick = rule(inside)
            picks.setdefault(tuple(pick.sizes.values()), pick)
            if budget in levels:
                named[budget] = list(picks).index(tuple(pick.sizes.values()))
    for trial in order if fill else ():
        if len(picks) < count:
            pick = rule([trial])
            picks.setdefault(tuple(pick.sizes.values()), pick)
    return Picks(tuple(picks.values()), named)


def _budgets(levels: Sequence[int]) -> Iterator[int]:
    """The levels, then the geometric means between neighbours, three times over."""
    known = sorted(set(levels), reverse=True)
    yield from known
    for _ in range(3):
        between = [int((a * b) ** 0.5) for a, b in itertools.pairwise(known)]
        yield from between
        known = sorted({*known, *between}, reverse=True)


def _first(order: Sequence[Scored]) -> Scored:
    return order[0]


class _Trim:
    """The best-scored sizes, less the tables that a supernet cannot tell from nothing.

    The best of hundreds of scores is the luckiest as much as the best: a field that is noise ends with a table because that
    once raised the AUC by a hundredth of a point. So every table that holds a material part of the parameters, the largest
    first, is put to the smallest candidate where the AUC then stays within one standard error (DeLong's, of the difference
    on the same validation rows) of the best, or loses less than the memory is worth: along the front, memory buys more.
    Small tables are left alone: they cost nothing, and a supernet that saw them change at every step says little of what
    they are worth.

    Args:
        context: The search.
    """

    # Share of the pick's parameters from which on a table is worth dropping.
    MATERIAL = 0.01
    # AUC that all of the pick's parameters are worth: half of them for 0.0015, where halving all tables costs as much or more.
    PRICE = 0.003

    def __init__(self, context: Context) -> None:
        self.context = context
        self.parts: dict[tuple[int, ...], AUCParts] = {}

    @cached_property
    def scorer(self) -> SubnetScorer:
        """Loaded when there is something to compare, for the supernet may be large."""
        context = self.context
        return context.one_shot.scorer(load_supernet(context), context.task.dataset, seed=context.seed)

    def __call__(self, order: Sequence[Scored]) -> Scored:
        """The pick, of sizes ordered by score."""
        best, space = order[0], self.context.space
        smallest, sizes = space.candidates[0], dict(best.sizes)
        held = {b.name: b.rows * (sizes[b.name] - smallest) for b in space.blocks}
        held = {name: params for name, params in held.items() if params > self.MATERIAL * best.params}
        for name in sorted(held, key=lambda name: -held[name]):
            without = {**sizes, name: smallest}
            if self._as_good(without, best):
                sizes = without
        if sizes == best.sizes:
            return best
        return Scored(best.number, sizes, self._part(sizes).auc, space.cost(sizes).params)

    def _as_good(self, sizes: Sizes, best: Scored) -> bool:
        ours, theirs = self._part(sizes), self._part(best.sizes)
        saved = 1 - self.context.space.cost(sizes).params / best.params
        return theirs.auc - ours.auc <= max(difference_error(theirs, ours), self.PRICE * saved)

    def _part(self, sizes: Sizes) -> AUCParts:
        key = tuple(sizes.values())
        if key not in self.parts:
            self.parts[key] = self.scorer.parts(self.context.space.to_indices(sizes)[np.newaxis])[0]
        return self.parts[key]
