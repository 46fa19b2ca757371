from __future__ import annotations

from dataclasses import replace

import pytest
from sample_results import point, result
from scipy.stats import kendalltau

from optuna_aes.visualization import plot_inherited


def test_searched_points_and_their_tau() -> None:
    found = result()
    searched = [p for p in found.points if not p.uniform]
    fig = plot_inherited(found)
    assert list(fig.data[0].x) == [p.auc_inherited for p in searched]
    assert list(fig.data[0].y) == [p.auc_valid for p in searched]
    tau = kendalltau([p.auc_inherited for p in searched], [p.auc_valid for p in searched]).statistic
    assert f"Kendall τ = {tau:.2f}" in fig.layout.title.text


@pytest.mark.parametrize(
    ("inherited", "told"), [((0.3, 0.2, 0.1), "τ = −1.00"), ((0.2, 0.2, 0.2), ""), ((0.1, 0.2), "")]
)
def test_tau_is_told_where_it_exists(inherited: tuple[float, ...], told: str) -> None:
    points = tuple(point(i, {"user": 1}, 0.9 + 0.01 * i, auc_inherited=auc) for i, auc in enumerate(inherited))
    title = plot_inherited(result(points=points)).layout.title.text
    assert told in title
    assert ("Kendall" in title) == bool(told)


def test_points_without_an_inherited_auc_are_left_out() -> None:
    found = result()
    some = tuple(replace(p, auc_inherited=None) if p.trial < 3 else p for p in found.points)
    assert len(plot_inherited(replace(found, points=some)).data[0].x) == 5
    none = tuple(replace(p, auc_inherited=None) for p in found.points)
    fig = plot_inherited(replace(found, points=none))
    assert len(fig.data) == 0
    assert "inherited" in fig.layout.annotations[0].text


def test_one_point_keeps_a_sensible_range() -> None:
    fig = plot_inherited(result(points=(point(0, {"user": 1}, 0.9),)))
    assert fig.layout.yaxis.range[0] > 0.8
    assert fig.layout.coloraxis.showscale is False
