from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optuna_aes.search.compare import Estimate, Run, compare, hypervolume, pick
from optuna_aes.search.records import Picks, Scored
from optuna_aes.search.results import Point, Result


def point(sizes: tuple[int, int], auc: float, *, uniform: bool = False, **changes: Any) -> Point:
    params = 10 * sizes[0] + 30 * sizes[1]
    values: dict[str, Any] = {
        "trial": params,
        "sizes": {"a": sizes[0], "b": sizes[1]},
        "params": params,
        "projections": 0,
        "bytes": 4 * params,
        "feasible": params <= 80,
        "auc_valid": auc,
        "auc_test": auc,
        "logloss_test": 0.4,
        "auc_test_std": 0.0,
        "seeds": 1,
        "uniform": uniform,
        "search_trial": None if uniform else 1,
        "seconds": 10.0,
    }
    return Point(**{**values, **changes})


def result(*points: Point, strategy: str = "adass") -> Result:
    return Result("s", strategy, "mlp", {"params": 80, "bytes": 320}, {"params": 160, "bytes": 640}, points, {})


REFERENCES = (point((1, 1), 0.6, uniform=True), point((2, 2), 0.7, uniform=True), point((4, 4), 0.8, uniform=True))
PICKED = (((4, 0), (4, 1)), ((4, 0), (2, 2)))  # by two seeds, at two budgets
SECONDS = {"fit": 12.0, "search": 8.0, "retrain": 99.0}


def test_a_pick_goes_by_validation_inside_the_share_and_is_searched() -> None:
    found = result(*REFERENCES, point((4, 0), 0.65), point((2, 1), 0.7, auc_valid=0.64), point((0, 3), 0.9))
    assert pick(found, 80) == found.points[3]
    best = pick(found, 100)
    assert best is not None
    assert best.params == 90
    assert pick(found, 30) is None


def test_hypervolume_is_the_mean_of_what_can_be_had_over_the_logarithm_of_the_budget() -> None:
    assert hypervolume(result(*REFERENCES), 0.25) == 0
    one = point((4, 0), 0.7)  # a quarter of the full size
    assert hypervolume(result(one), 0.25) == pytest.approx(0.4)
    assert hypervolume(result(one), 0.0625) == pytest.approx(0.4 / 2)
    assert hypervolume(result(point((1, 0), 0.7)), 0.25) == pytest.approx(
        0.4
    )  # what lies below the box gains nothing by it
    beaten, better, over = point((6, 0), 0.6), point((5, 1), 0.8), point((4, 2), 0.99)
    assert hypervolume(result(over, better, beaten, one), 0.25) == pytest.approx((0.4 + 0.6) / 2)
    assert hypervolume(result(point((4, 0), 0.4)), 0.25) == 0


def test_strategies_are_set_side_by_side() -> None:
    at = {40: 0, 80: 1}
    picks = [Picks(tuple(Scored(1, {"a": a, "b": b}, 0.6, 0) for a, b in pair), at) for pair in PICKED]
    first = result(*REFERENCES, point((4, 0), 0.66, auc_inherited=0.6), point((4, 1), 0.72, auc_inherited=0.5))
    second = result(point((4, 0), 0.68, auc_inherited=0.6), point((2, 2), 0.74, auc_inherited=0.7))
    other = result(point((1, 1), 0.6), strategy="random")
    runs = [
        Run("adass", 0, first, SECONDS, picks[0]),
        Run("adass", 1, second, SECONDS, picks[1]),
        Run("random", 0, other, {**SECONDS, "fit": 0.0}),
    ]
    found = compare(runs, (0.25, 0.5))
    adass, random = found.rows
    assert adass.auc == {
        0.25: Estimate(pytest.approx(0.67), pytest.approx(0.02 / 2**0.5), 2),
        0.5: Estimate(pytest.approx(0.73), pytest.approx(0.02 / 2**0.5), 2),
    }
    assert found.uniform == {0.25: Estimate(0.6, 0.0, 1), 0.5: Estimate(0.7, 0.0, 1)}
    assert adass.cost == Estimate(20.0, 0.0, 2)
    assert adass.trainings == Estimate(2.0, 0.0, 1)  # of the seed whose full-size model was trained
    assert random.trainings == Estimate(0.8, 0.0, 1)
    assert adass.agreement == 0.5  # all of two fields at one budget, none at the other
    assert adass.log2_std == pytest.approx(np.mean([0, 0, 2**-0.5, 2**-0.5]))
    assert random.agreement is None
    assert adass.tau is None  # two points have no ranking to speak of


def test_what_is_missing_is_left_open() -> None:
    found = compare([Run("random", 0, result(point((4, 0), 0.7)), SECONDS)], (0.1, 0.5))
    assert found.rows[0].auc[0.1] is None
    assert found.rows[0].trainings is None
    assert found.uniform == {0.1: None, 0.5: None}
    assert found.to_json()["rows"][0]["auc"][0.5]["mean"] == 0.7


def test_ranking_is_of_inherited_against_retrained() -> None:
    points = [point((a, 0), 0.6 + a / 100, auc_inherited=0.5 - a / 100) for a in range(1, 5)]
    (row,) = compare([Run("adass", 0, result(*points), SECONDS)], (0.5,)).rows
    assert row.tau == Estimate(-1.0, 0.0, 1)


def test_the_lead_is_over_the_first_strategy_with_the_same_seed() -> None:
    aucs = {"random": (0.70, 0.80), "adass": (0.71, 0.83), "tpe": (0.69, None)}
    runs = [
        Run(name, seed, result(point((4, 0), auc), strategy=name), SECONDS)
        for name, of_seeds in aucs.items()
        for seed, auc in enumerate(of_seeds)
        if auc is not None
    ]
    first, adass, tpe = compare(runs, (0.25,)).rows
    assert first.lead is None
    assert adass.lead == Estimate(pytest.approx(0.04), pytest.approx(0.04 / 2**0.5), 2)  # of +0.02 and +0.06
    assert tpe.lead == Estimate(pytest.approx(-0.02), 0.0, 1)
