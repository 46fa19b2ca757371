"""What several strategies found on one task, side by side: plain values from finished searches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optuna_aes.search.read import Record, history, picks_of, result
from optuna_aes.search.records import NO_PICKS, Picks
from optuna_aes.search.results import Point, Result
from optuna_aes.search.stability import Agreement
from optuna_aes.space import Sizes


@dataclass(frozen=True)
class Run:
    """One finished search: its strategy and seed, what it found, the seconds of its stages, and its picks."""

    strategy: str
    seed: int
    result: Result
    seconds: dict[str, float]
    picks: Picks = NO_PICKS

    @classmethod
    def of(cls, record: Record) -> Run:
        """Reads a search from its storage."""
        found = result(record)
        return cls(found.strategy, int(record.settings["seed"]), found, history(record).seconds, picks_of(record))

    def picked(self, share: float) -> Sizes | None:
        """What the search itself picked at a share of the full size, before anything was trained from scratch."""
        # A level is a whole number of parameters, rounded down twice: from the share to the budget, and from there.
        pick = self.picks.at(share * self.result.full["params"] + 0.5)
        return None if pick is None else pick.sizes


@dataclass(frozen=True)
class Estimate:
    """Mean and standard deviation between seeds (0 with one), and how many seeds have a value."""

    mean: float
    std: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Estimate | None:
        """Of the values that are there; None of none."""
        known = np.array([v for v in values if v is not None and np.isfinite(v)], dtype=np.float64)
        if not len(known):
            return None
        return cls(float(known.mean()), float(known.std(ddof=1)) if len(known) > 1 else 0.0, len(known))


@dataclass(frozen=True)
class Row:
    """One strategy.

    Args:
        strategy: Its name.
        auc: Test AUC by share of the full-size parameters: of the searched points within it, the one best on validation.
        hypervolume: Of the test front in a box that is the same for all, see :func:`hypervolume`.
        lead: The same less that of the first strategy under the same seed, which takes away what the seed makes of both; None
            for the first one.
        cost: Seconds of fit and search, of computing on a CPU, by the clock on a GPU.
        trainings: The same in trainings of the full-size model.
        agreement: Share of fields that have the same size under two seeds in what the search picked, over pairs of seeds
            and budgets.
        log2_std: Standard deviation of log2 of such a field's size between seeds (a size of 0 counts as ½), over fields
            and budgets.
        tau: Kendall's τ between inherited and retrained AUC of the searched points.
    """

    strategy: str
    auc: dict[float, Estimate | None]
    hypervolume: Estimate | None
    lead: Estimate | None
    cost: Estimate | None
    trainings: Estimate | None
    agreement: float | None
    log2_std: float | None
    tau: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """Strategies on one task under one budget.

    Args:
        shares: Budgets at which test AUC is compared, as shares of the full-size parameters.
        full: Parameters of the full-size tables.
        uniform: Test AUC of one size for all, interpolated at each share.
        rows: The strategies.
    """

    shares: tuple[float, ...]
    full: int
    uniform: dict[float, Estimate | None]
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """One JSON-ready object."""
        return asdict(self)


def compare(runs: Sequence[Run], shares: Sequence[float]) -> Comparison:
    """Compares finished searches.

    Args:
        runs: Of one task and budget; several seeds of each strategy. At least one has the uniform sizes for reference.
        shares: Budgets, as shares of the full-size parameters.
    """
    full = runs[0].result.full["params"]
    whole = {run.seed: _full_seconds(run.result) for run in runs if _full_seconds(run.result) is not None}
    strategies = list(dict.fromkeys(run.strategy for run in runs))
    volumes = {(run.strategy, run.seed): hypervolume(run.result, min(shares)) for run in runs}
    leads = {
        (name, seed): volume - volumes[strategies[0], seed]
        for (name, seed), volume in volumes.items()
        if name != strategies[0] and (strategies[0], seed) in volumes
    }
    references = [run.result for run in runs if any(p.uniform for p in run.result.points)]
    return Comparison(
        shares=tuple(shares),
        full=full,
        uniform={s: Estimate.of(_uniform_auc(r, s * full) for r in references) for s in shares},
        rows=tuple(
            _row(name, [r for r in runs if r.strategy == name], shares, whole, volumes, leads) for name in strategies
        ),
    )


def _row(
    name: str,
    runs: Sequence[Run],
    shares: Sequence[float],
    whole: dict[int, float | None],
    volumes: dict[tuple[str, int], float],
    leads: dict[tuple[str, int], float],
) -> Row:
    full = runs[0].result.full["params"]
    points = {s: [pick(run.result, s * full) for run in runs] for s in shares}
    seconds = [run.seconds["fit"] + run.seconds["search"] for run in runs]
    ones = [whole.get(run.seed) for run in runs]
    alike = Agreement.mean(
        [Agreement.of([sizes for run in runs if (sizes := run.picked(s)) is not None]) for s in shares]
    )
    return Row(
        strategy=name,
        auc={s: Estimate.of(None if p is None else p.auc_test for p in found) for s, found in points.items()},
        hypervolume=Estimate.of(volumes[name, run.seed] for run in runs),
        lead=Estimate.of(leads.get((name, run.seed)) for run in runs),
        cost=Estimate.of(seconds),
        trainings=Estimate.of(s / one if one else None for s, one in zip(seconds, ones, strict=True)),
        agreement=None if alike is None else alike.same,
        log2_std=None if alike is None else alike.log2_std,
        tau=Estimate.of(_tau(run.result) for run in runs),
    )


def pick(result: Result, params: float) -> Point | None:
    """The searched point within so many parameters that is best on validation; its test AUC decides nothing."""
    inside = [p for p in result.points if p.search_trial is not None and p.params <= params]
    return max(inside, key=lambda p: p.auc_valid, default=None)


def hypervolume(result: Result, smallest: float) -> float:
    """Share of a box that the searched points dominate; 0 to 1.

    The box reaches in test AUC from 0.5 (the reference: a model that knows nothing) to 1, and in parameters from the
    ``smallest`` share of the full size to all of it, on a logarithmic scale. So it is the mean of 2·AUC − 1, over the
    logarithm of what one may spend, of the best point that one can afford.

    Why this box: below the smallest budget that is compared nobody was asked for anything, and a point that happens to
    lie there would gain what others could have had as well. Above the largest budget its pick is still the best to be
    had, and would count for next to nothing if the box ended where that pick lies. Why logarithmic: sizes double from one
    candidate to the next, and to halve the tables costs an AUC of the same order wherever one stands; linear in
    parameters, the range above half of the full size, where nothing was asked for, would be most of the box.

    Args:
        result: A finished search.
        smallest: Share of the full-size parameters at which the box begins, in (0, 1).
    """
    full = result.full["params"]
    searched = [p for p in result.points if p.feasible and p.search_trial is not None]
    return dominated([(p.params / full, p.auc_test) for p in searched], smallest)


def dominated(points: Iterable[tuple[float, float]], smallest: float) -> float:
    """The share of the box of :func:`hypervolume` that points of (share of the full-size parameters, AUC) dominate."""
    known = sorted(points)
    ends = [math.log(max(share, smallest)) for share, _ in known] + [0.0]
    area, best = 0.0, 0.5
    for (start, stop), (_, auc) in zip(itertools.pairwise(ends), known, strict=True):
        best = max(best, auc)
        area += (2 * best - 1) * (stop - start)
    return area / -math.log(smallest)


def _uniform_auc(result: Result, params: float) -> float | None:
    """Test AUC of uniform sizes, linear in parameters between them; None outside of them."""
    curve = sorted((p.params, p.auc_test) for p in result.points if p.uniform)
    if not curve or not curve[0][0] <= params <= curve[-1][0]:
        return None
    costs, aucs = np.array(curve).T
    return float(np.interp(params, costs, aucs))


def _full_seconds(result: Result) -> float | None:
    return next((p.seconds for p in result.points if p.params == result.full["params"] and p.seconds > 0), None)


def _tau(result: Result) -> float | None:
    known = [(p.auc_inherited, p.auc_valid) for p in result.points if p.auc_inherited is not None]
    if len(known) < 3:
        return None
    inherited, retrained = np.array(known).T
    from scipy.stats import kendalltau  # 70 MiB, which only a comparison needs

    return float(kendalltau(inherited, retrained)[0])
