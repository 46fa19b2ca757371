from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from sample_results import history, result

from optuna_aes.search.results import History
from optuna_aes.visualization import plot_history

EMPTY = History((), (), (), (), {})
SMALL = History((2, 0, 1, 3), (0.7, 0.6, 0.9, 0.65), (10, 20, 99, 30), (0.5, 0.6), {})


def trace(fig: Any, name: str) -> Any:
    return next((t for t in fig.data if t.name == name), None)


def test_subnets_by_trial_number_and_params() -> None:
    fig = plot_history(SMALL, 50)
    inside = trace(fig, "Subnet inside the budget")
    assert list(inside.x) == [0, 2, 3]
    assert list(inside.y) == [0.6, 0.7, 0.65]
    assert list(inside.marker.color) == [20, 10, 30]
    assert "10 params" in inside.hovertext[1]
    assert list(trace(fig, "Over budget").x) == [1]


def test_running_best_counts_only_what_fits_the_budget() -> None:
    best = trace(plot_history(SMALL, 50), "Best so far")
    assert list(best.x) == [0, 2, 3]
    assert list(best.y) == [0.6, 0.7, 0.7]
    assert best.line.shape == "hv"


def test_running_best_of_a_long_search() -> None:
    long = history()
    budget = result().budget["params"]
    best = trace(plot_history(long, budget), "Best so far")
    inside = [auc for auc, params in zip(long.aucs, long.params, strict=True) if params <= budget]
    rises = np.unique(np.maximum.accumulate(inside))
    assert list(best.y[:-1]) == list(rises)
    assert best.x[-1] == 299


def test_a_few_very_low_subnets_are_drawn_at_the_edge() -> None:
    aucs = (*np.linspace(0.90, 0.95, 60), 0.55, 0.6)
    fig = plot_history(History(tuple(range(62)), aucs, (10,) * 61 + (99,), (), {}), 50)
    inside, over = trace(fig, "Subnet inside the budget"), trace(fig, "Over budget")
    assert list(inside.y[:60]) == list(aucs[:60])
    assert 0.87 < inside.y[60] == over.y[0] < 0.9
    assert list(inside.marker.symbol) == ["circle"] * 60 + ["triangle-down"]
    assert list(over.marker.symbol) == ["triangle-down-open"]
    assert "0.5500" in inside.hovertext[60]


def test_the_fit_has_its_own_panel() -> None:
    fig = plot_history(SMALL, 50)
    fit = trace(fig, "Supernet")
    assert (list(fit.x), list(fit.y)) == ([1, 2], [0.5, 0.6])
    assert fig.layout.xaxis.domain[1] < fig.layout.xaxis2.domain[0]


def test_without_epochs_the_search_has_the_whole_width() -> None:
    fig = plot_history(replace(SMALL, epochs=()), 50)
    assert trace(fig, "Supernet") is None
    assert tuple(fig.layout.xaxis2.domain) == (0, 1)


def test_without_subnets_the_fit_has_the_whole_width() -> None:
    fig = plot_history(History((), (), (), (0.5, 0.6), {}), 50)
    assert [t.name for t in fig.data] == ["Supernet"]
    assert tuple(fig.layout.xaxis.domain) == (0, 1)


def test_nothing_yet() -> None:
    assert "yet" in plot_history(EMPTY, 50).layout.annotations[0].text


def test_all_over_budget_has_no_running_best() -> None:
    assert [t.name for t in plot_history(replace(SMALL, epochs=()), 1).data] == ["Over budget"]


def test_a_subnet_without_an_auc_is_left_out() -> None:
    fig = plot_history(replace(SMALL, aucs=(math.nan, 0.6, 0.9, 0.65)), 50)
    assert list(trace(fig, "Subnet inside the budget").x) == [0, 3]


def test_equal_aucs_keep_a_sensible_range() -> None:
    low, high = plot_history(History((0,), (0.7,), (10,), (), {}), 50).layout.yaxis2.range
    assert 0.6 < low < 0.7 < high < 0.8


def test_a_huge_search_is_thinned_but_its_best_is_not() -> None:
    many = 20_000
    aucs = tuple(0.5 + i * 1e-6 for i in range(many))
    fig = plot_history(History(tuple(range(many)), aucs, (10,) * many, (), {}), 50)
    assert len(trace(fig, "Subnet inside the budget").x) <= 4000
    assert trace(fig, "Best so far").y[-1] == aucs[-1]
    assert "20,000 subnets" in fig.layout.title.text
