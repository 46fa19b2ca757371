from __future__ import annotations

import math
from dataclasses import replace

from sample_results import ROWS, point, result

from optuna_aes.visualization import plot_sizes


def test_rows_are_fields_by_cost_and_columns_the_front_by_params() -> None:
    found = result()
    fig = plot_sizes(found, ROWS)
    fields = sorted(ROWS, key=lambda name: -ROWS[name])
    heat = fig.data[0]
    assert [list(row) for row in heat.text] == [[str(p.sizes[name]) for p in found.front] for name in fields]
    assert [label.split(" ")[0] for label in fig.layout.yaxis.ticktext] == fields
    assert "4.08k rows" in fig.layout.yaxis.ticktext[0]
    assert fig.layout.yaxis.autorange == "reversed"
    assert ["5.13k" in fig.layout.xaxis.ticktext[0], "★" in fig.layout.xaxis.ticktext[-1]] == [True, True]


def test_colour_is_the_logarithm_and_zero_lies_below_one() -> None:
    found = result()
    fig = plot_sizes(found, ROWS)
    for texts, levels in zip(fig.data[0].text, fig.data[0].z, strict=True):
        for text, level in zip(texts, levels, strict=True):
            assert level == (math.log2(int(text)) if int(text) else -1.0)
    assert list(fig.layout.coloraxis.colorbar.ticktext) == ["0", "1", "2", "3", "4", "8"]


def test_hover_tells_what_a_field_costs() -> None:
    text = plot_sizes(result(), ROWS).data[0].hovertext[0][-1]
    for part in ("item", "size 3", "4,082 rows", "12,246 params", "59\u00a0% of the point", "trial 5", "0.9835"):
        assert part in text


def test_without_rows_fields_stand_by_mean_size() -> None:
    fig = plot_sizes(result())
    assert fig.layout.yaxis.ticktext[0] == "user"
    assert fig.layout.yaxis.ticktext[-1] == "cost"
    assert "rows" not in fig.data[0].hovertext[0][0]


def test_no_point_in_the_budget_shows_all() -> None:
    found = result()
    fig = plot_sizes(replace(found, points=tuple(replace(p, feasible=False) for p in found.points)), ROWS)
    assert len(fig.data[0].x) == len(found.points)
    assert "no point fits the budget" in fig.layout.title.text


def test_uniform_points_of_the_front_are_named() -> None:
    found = result()
    fig = plot_sizes(replace(found, points=tuple(p for p in found.points if p.uniform)), ROWS)
    assert [label.split("<br>")[1] for label in fig.layout.xaxis.ticktext] == ["uniform 1", "uniform 2", "uniform 4"]


def test_height_grows_with_the_fields_and_long_names_are_cut() -> None:
    rows = {f"a_very_long_name_that_no_margin_can_hold_{i}": 10 + i for i in range(60)}
    found = result(points=(point(0, dict.fromkeys(rows, 2), 0.97, rows=rows),))
    fig = plot_sizes(found, rows)
    assert fig.layout.height > plot_sizes(result(), ROWS).layout.height + 50 * 20
    names = [label.split(" <")[0] for label in fig.layout.yaxis.ticktext]
    assert all(len(name) <= 28 for name in names)
    assert len(set(names)) == 60  # the ends tell them apart


def test_a_field_that_a_point_does_not_have_is_an_empty_cell() -> None:
    a, b = point(0, {"user": 1}, 0.96), point(1, {"user": 2, "item": 1}, 0.97)
    heat = plot_sizes(result(points=(a, b))).data[0]
    assert [list(texts) for texts in heat.text] == [["1", "2"], ["", "1"]]
    assert heat.z[1][0] is None


def test_many_points_are_labelled_sparsely_on_a_phone() -> None:
    points = tuple(point(i, {"user": 1 + i}, 0.9 + 0.001 * i, feasible=True) for i in range(30))
    fig = plot_sizes(result(points=points))
    narrow = fig.layout.meta["narrow"]
    assert len(narrow["xaxis.tickvals"]) == len(narrow["xaxis.ticktext"]) <= 12
    assert narrow["data.0.texttemplate"] == ""


def test_names_are_not_markup() -> None:
    sizes = {"<script>alert(1)</script>": 1}
    fig = plot_sizes(result(points=(point(0, sizes, 0.97, rows=dict.fromkeys(sizes, 5)),)))
    assert "<script" not in str(fig.to_dict())


def test_no_points() -> None:
    assert plot_sizes(result(points=())).layout.annotations[0].text == "No retrained points yet"
