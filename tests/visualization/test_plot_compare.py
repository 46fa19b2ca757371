from __future__ import annotations

from pathlib import Path

from optuna_aes.search.compare import Comparison, Estimate, Row
from optuna_aes.visualization import compare_report, plot_compare, plot_cost, plot_stability

SHARES = (0.1, 0.25)


def row(name: str, auc: float, trainings: float | None) -> Row:
    aucs = {0.1: Estimate(auc, 0.001, 3), 0.25: None if name == "gp" else Estimate(auc + 0.01, 0.002, 3)}
    cost = None if trainings is None else Estimate(trainings, 0.0, 1)
    return Row(name, aucs, None, None, None, cost, 0.8, 0.5, None)


FOUND = Comparison(
    SHARES,
    1000,
    {0.1: Estimate(0.7, 0.0, 1), 0.25: None},
    (row("adass", 0.75, 2.0), row("gp", 0.74, None), row("<b>", 0.73, 40.0)),
)


def test_every_strategy_has_its_points_beside_those_of_the_others() -> None:
    fig = plot_compare(FOUND)
    adass, gp, own, uniform = fig.data
    assert list(adass.y) == [0.75, 0.76]
    assert list(adass.error_y.array) == [0.001, 0.002]
    assert list(gp.y) == [0.74]
    assert adass.x[0] < gp.x[0] < own.x[0]
    assert uniform.name.startswith("Uniform")
    assert [shape.y0 for shape in fig.layout.shapes] == [0.7]
    assert list(fig.layout.xaxis.ticktext) == ["10\xa0%", "25\xa0%"]


def test_costs_are_told_where_they_are_known() -> None:
    (bars,) = plot_cost(FOUND).data
    assert list(bars.y) == ["<b>", "adass"]
    assert list(bars.x) == [40.0, 2.0]
    assert not plot_cost(Comparison(SHARES, 1, {}, (row("gp", 0.7, None),))).data


def test_stability_needs_two_seeds() -> None:
    (bars,) = plot_stability(FOUND).data
    assert list(bars.x) == [0.8] * 3
    single = Comparison(SHARES, 1, {}, (Row("gp", {}, None, None, None, None, None, None, None),))
    assert not plot_stability(single).data


def test_the_report_is_one_file_without_links_out(tmp_path: Path) -> None:
    page = compare_report(FOUND, tmp_path / "c.html", name="clicks <2>").read_text()
    assert "clicks &lt;2&gt;" in page
    assert page.count('class="figure"') == 3
    assert "<script src" not in page
