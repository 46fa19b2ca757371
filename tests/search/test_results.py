from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from optuna_aes.search.results import Point, Result, non_dominated


def point(trial: int, params: int, auc: float, **changes: Any) -> Point:
    values: dict[str, Any] = {
        "trial": trial,
        "sizes": {"a": trial},
        "params": params,
        "projections": 0,
        "bytes": 4 * params,
        "feasible": params <= 100,
        "auc_valid": auc,
        "auc_test": auc,
        "logloss_test": 0.4,
        "auc_test_std": 0.0,
        "seeds": 1,
        "uniform": False,
        "search_trial": trial,
    }
    return Point(**{**values, **changes})


def result(*points: Point) -> Result:
    full = {"params": 400, "bytes": 1600}
    return Result("s", "adass", "mlp", {"params": 100, "bytes": 400}, full, points, {})


def test_the_front_is_what_fits_and_is_not_beaten() -> None:
    points = point(0, 10, 0.6), point(1, 20, 0.59), point(2, 50, 0.7), point(3, 100, 0.7), point(4, 101, 0.9)
    assert [p.trial for p in result(*points).front] == [0, 2]


def test_uniform_points_are_on_the_front_too() -> None:
    uniform = point(1, 20, 0.8, uniform=True, search_trial=None)
    assert [p.trial for p in result(point(0, 10, 0.6), uniform).front] == [0, 1]


def test_best_goes_by_validation_and_never_by_the_test() -> None:
    points = point(0, 10, 0.6, auc_valid=0.7), point(1, 20, 0.9, auc_valid=0.65)
    best = result(*points).best
    assert best is not None
    assert best.trial == 0


def test_best_is_searched_and_fits() -> None:
    over, reference = point(1, 200, 0.9), point(2, 50, 0.8, uniform=True, search_trial=None)
    assert result(over, reference).best is None
    found = point(3, 60, 0.5, uniform=True)  # a search may find that one size for all is best
    assert result(over, reference, found).best == found


def test_json_holds_the_front_and_the_best() -> None:
    points = point(0, 10, 0.6), point(1, 50, 0.7)
    found = json.loads(json.dumps(result(*points).to_json()))
    assert [p["trial"] for p in found["front"]] == [0, 1]
    assert found["best"] == 1
    assert result().to_json()["best"] is None
    assert result().to_json()["front"] == []


@pytest.mark.parametrize("seed", range(20))
def test_non_dominated_by_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, costs = rng.integers(0, 6, 15).tolist(), rng.integers(0, 6, 15).tolist()

    def beaten(i: int) -> bool:
        return any(
            values[j] >= values[i]
            and costs[j] <= costs[i]
            and ((values[j], costs[j]) != (values[i], costs[i]) or j < i)
            for j in range(15)
            if j != i
        )

    found = non_dominated(values, costs)
    assert sorted(found) == [i for i in range(15) if not beaten(i)]
    assert [costs[i] for i in found] == sorted(costs[i] for i in found)
