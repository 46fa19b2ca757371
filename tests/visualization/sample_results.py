"""What a search on ten fields could have found: for the tests, and for looking at the report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from optuna_aes.search.results import History, Point, Result

ROWS = {
    "user": 957,
    "item": 4082,
    "daytime": 7,
    "weekday": 7,
    "isweekend": 2,
    "homework": 3,
    "cost": 2,
    "weather": 9,
    "country": 80,
    "city": 233,
}
FULL = 16
UNIFORM = {1: 0.962, 2: 0.975, 4: 0.980, 8: 0.9825, 16: 0.984}
# Sizes in the order of ROWS, test AUC.
SEARCHED = [
    ((1, 1, 1, 0, 0, 1, 0, 0, 1, 0), 0.9668),
    ((2, 1, 1, 1, 0, 1, 0, 1, 1, 0), 0.9731),
    ((4, 1, 2, 1, 1, 2, 0, 1, 2, 1), 0.9768),
    ((4, 2, 2, 2, 1, 2, 1, 1, 4, 1), 0.9801),
    ((8, 2, 4, 2, 1, 2, 1, 2, 4, 2), 0.9822),
    ((8, 3, 4, 2, 2, 4, 1, 2, 4, 2), 0.9835),
    ((16, 4, 4, 2, 2, 4, 1, 4, 8, 4), 0.9846),
    ((16, 8, 8, 4, 2, 4, 2, 4, 8, 8), 0.9849),
]


def cost(sizes: dict[str, int], rows: dict[str, int] = ROWS) -> int:
    return sum(rows[name] * size for name, size in sizes.items())


def point(trial: int, sizes: dict[str, int], auc: float, *, rows: dict[str, int] = ROWS, **changes: Any) -> Point:
    params = cost(sizes, rows)
    made = Point(
        trial=trial,
        sizes=sizes,
        params=params,
        projections=0,
        bytes=4 * params,
        feasible=True,
        auc_valid=auc + 0.0011,
        auc_test=auc,
        logloss_test=0.42 - 0.3 * (auc - 0.9),
        auc_test_std=0.0004,
        seeds=3,
        uniform=False,
        search_trial=trial * 7,
        auc_inherited=0.955 + 0.6 * (auc - 0.96) + 0.0008 * math.sin(5 * trial),
    )
    return replace(made, **changes)


def result(**changes: Any) -> Result:
    full = cost(dict.fromkeys(ROWS, FULL))
    budget = int(0.30 * full)
    points = [point(i, dict(zip(ROWS, sizes, strict=True)), auc) for i, (sizes, auc) in enumerate(SEARCHED)]
    points += [
        point(20 + i, dict.fromkeys(ROWS, size), auc, uniform=True, search_trial=None, auc_inherited=None)
        for i, (size, auc) in enumerate(UNIFORM.items())
    ]
    points = [replace(p, feasible=p.params <= budget) for p in points]
    made = Result(
        study="frappe",
        strategy="adass",
        backbone="deepfm",
        budget={"params": budget, "bytes": 4 * budget},
        full={"params": full, "bytes": 4 * full},
        points=tuple(sorted(points, key=lambda p: p.params)),
        facts={},
    )
    return replace(made, **changes)


def history(trials: int = 300) -> History:
    rng = np.random.default_rng(0)
    number = np.arange(trials)
    full = cost(dict.fromkeys(ROWS, FULL))
    params = (full * rng.uniform(0.03, 0.30 + 0.05 * (number < 40), trials)).astype(int)
    aucs = 0.952 + 0.010 * (1 - np.exp(-number / 80)) + 0.006 * np.sqrt(params / full) + rng.normal(0, 0.0015, trials)
    return History(
        numbers=tuple(int(n) for n in number),
        aucs=tuple(float(a) for a in aucs),
        params=tuple(int(p) for p in params),
        epochs=(0.91, 0.938, 0.951, 0.9575, 0.9611, 0.9634, 0.9641, 0.9640),
        seconds={"fit": 83.2, "search": 21.4, "retrain": 604.0},
    )
