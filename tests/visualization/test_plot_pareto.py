from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from sample_results import ROWS, UNIFORM, point, result

from optuna_aes.search.results import Result
from optuna_aes.visualization import plot_pareto


def trace(fig: Any, name: str) -> Any:
    return next((t for t in fig.data if t.name == name), None)


def notes(fig: Any) -> list[str]:
    return [a.text for a in fig.layout.annotations]


def one(**changes: Any) -> Result:
    only = point(0, dict.fromkeys(ROWS, 2), 0.97, seeds=1, auc_test_std=0.0, **changes)
    return result(points=(only,), budget={"params": 12_000, "bytes": 48_000})


def test_every_point_stands_where_it_belongs() -> None:
    found = result()
    fig = plot_pareto(found)
    searched = [p for p in found.points if not p.uniform]
    over, inside = trace(fig, "Searched, over budget"), trace(fig, "Searched, inside the budget")
    best, front, uniform = trace(fig, "Best by validation"), trace(fig, "Front"), trace(fig, "Uniform size")
    assert list(over.x) == [p.params for p in searched if not p.feasible]
    assert list(inside.x) == [p.params for p in searched if p.feasible and p is not found.best]
    assert (list(best.x), list(best.y)) == ([found.best.params], [found.best.auc_test])
    assert list(front.x) == [p.params for p in found.front]
    assert list(front.y) == [p.auc_test for p in found.front]
    assert front.line.shape == "hv"
    assert list(uniform.y) == list(UNIFORM.values())
    assert list(uniform.text) == [f"<b>{size}</b>" for size in UNIFORM]


def test_the_star_is_the_choice_of_validation_even_where_the_front_is_higher() -> None:
    found = result()
    lucky = replace(found.points[0], auc_valid=0.999)
    fig = plot_pareto(replace(found, points=(lucky, *found.points[1:])))
    assert list(trace(fig, "Best by validation").x) == [lucky.params]


def test_budget_is_a_labelled_line() -> None:
    found = result()
    fig = plot_pareto(found)
    line = next(s for s in fig.layout.shapes if s.type == "line")
    assert line.x0 == line.x1 == found.budget["params"]
    label = next(a for a in fig.layout.annotations if "Budget" in a.text)
    assert "25.8k" in label.text
    assert label.x == pytest.approx(math.log10(found.budget["params"]))  # the axis is logarithmic


def test_a_wide_range_is_logarithmic_and_a_narrow_one_is_not() -> None:
    wide = plot_pareto(result()).layout.xaxis
    assert wide.type == "log"
    assert {"10k", "20k", "50k"} <= set(wide.ticktext)
    narrow = plot_pareto(one()).layout.xaxis
    assert narrow.type is None


def test_size_zero_everywhere_has_no_logarithm() -> None:
    found = result()
    nothing = point(99, dict.fromkeys(ROWS, 0), 0.5)
    assert plot_pareto(replace(found, points=(nothing, *found.points))).layout.xaxis.type is None


def test_hover_tells_sizes_params_share_aucs_and_seeds() -> None:
    found = result()
    text = trace(plot_pareto(found), "Best by validation").hovertext[0]
    for part in ("Trial 5", "20,766 params", "24.1\u00a0% of full", "0.9835 ± 0.0004", "valid 0.9846", "3 seeds"):
        assert part in text
    assert all(f"{name} <b>{size}</b>" in text for name, size in found.best.sizes.items())
    assert "Bayes" not in text
    uniform = trace(plot_pareto(found), "Uniform size").hovertext
    assert "all fields size 8" in uniform[3]
    assert "over budget" in uniform[3]


def test_hover_of_many_fields_is_cut_and_counted() -> None:
    sizes = {f"a_rather_long_name_of_a_field_{i}": 1 + i % 4 for i in range(60)}
    found = result(points=(point(0, sizes, 0.97, rows=dict.fromkeys(sizes, 10)),))
    text = trace(plot_pareto(found), "Best by validation").hovertext[0]
    assert "fields more" in text
    assert text.count("<br>") < 15


def test_error_bars_only_with_several_seeds() -> None:
    assert list(trace(plot_pareto(result()), "Uniform size").error_y.array) == [0.0004] * 5
    assert trace(plot_pareto(one()), "Best by validation").error_y.array is None


def test_bayes_auc_is_a_line_where_there_is_room_and_words_where_not() -> None:
    near = plot_pareto(result(facts={"bayes_auc": 0.988}))
    assert any("Bayes AUC (best possible) 0.9880" in text for text in notes(near))
    assert near.layout.yaxis.range[1] > 0.988
    assert "of the Bayes AUC" in trace(near, "Best by validation").hovertext[0]
    top = tuple(p for p in result().points if p.auc_test > 0.98)
    far = plot_pareto(result(points=top, facts={"bayes_auc": 0.9999}))
    assert not any("Bayes" in text for text in notes(far))
    assert far.layout.yaxis.range[1] < 0.99
    assert "Bayes AUC (best possible) 0.9999" in far.layout.title.text


@pytest.mark.parametrize("value", [None, 0.5, "high"])
def test_a_bayes_auc_that_says_nothing_is_left_out(value: object) -> None:
    fig = plot_pareto(result(facts={"bayes_auc": value}))
    assert "Bayes" not in fig.to_json()


def test_only_uniform_points() -> None:
    found = result()
    fig = plot_pareto(replace(found, points=tuple(p for p in found.points if p.uniform)))
    assert {t.name for t in fig.data} == {"Uniform size", "Front"}


def test_one_point_has_a_range_and_no_front_line() -> None:
    fig = plot_pareto(one())
    assert {t.name for t in fig.data} == {"Best by validation"}
    low, high = fig.layout.yaxis.range
    assert low < 0.97 < high


def test_no_point_in_the_budget() -> None:
    found = result()
    fig = plot_pareto(replace(found, points=tuple(replace(p, feasible=False) for p in found.points)))
    assert {t.name for t in fig.data} == {"Uniform size", "Searched, over budget"}


def test_no_points_and_points_without_an_auc() -> None:
    assert notes(plot_pareto(result(points=()))) == ["No retrained points yet"]
    lost = plot_pareto(one(auc_valid=math.nan))
    assert len(lost.data) == 1
    broken = replace(result().points[0], auc_test=math.nan)
    assert notes(plot_pareto(result(points=(broken,)))) == ["No retrained points yet"]


def test_names_from_the_data_are_not_markup() -> None:
    sizes = {"<b>bold</b>": 4, "a & b": 2}
    found = result(study="<i>x</i>", points=(point(0, sizes, 0.97, rows=dict.fromkeys(sizes, 10)),))
    fig = plot_pareto(found)
    text = fig.data[0].hovertext[0]
    assert "&lt;b&gt;bold&lt;/b&gt; <b>4</b>" in text
    assert "a &amp; b" in text
    assert "<i>" not in fig.layout.title.text
