"""The Pareto front: what test AUC each number of embedding parameters buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from optuna_aes.search.results import Point, Result
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._text import bayes_auc, hover, human, metric, percent, safe, uniform_size

_WIDE_RANGE = 8
_SQUASHED = 0.6


class _Look(NamedTuple):
    name: str
    color: str
    rank: int  # place in the legend; drawing order puts what matters on top, a legend puts it first
    symbol: str = "circle"
    size: int = 10


_BEST = _Look("Best by validation", style.BEST, 2, symbol="star", size=18)
_INSIDE = _Look("Searched, inside the budget", style.FRONT, 3)
_OVER = _Look("Searched, over budget", style.OVER, 5, symbol="circle-open")


def plot_pareto(result: Result) -> go.Figure:
    """Plots test AUC against embedding parameters: searched points, their front, uniform sizes and the budget.

    The front is a step line, since a budget between two points buys the smaller one. The point marked best is the one
    chosen on validation, so it need not be the highest.

    Args:
        result: The retrained points of a study.

    Returns:
        A plotly figure.
    """
    points = [p for p in result.points if math.isfinite(p.auc_test)]
    fig = style.figure(
        "Test AUC against embedding parameters",
        _subtitle(result, points),
        height=540,
        narrow={"height": 500, "legend.y": -0.2, "margin": {"l": 48, "r": 12, "t": 30, "b": 40}},
    )
    if not points:
        return style.message(fig, "No retrained points yet")
    uniform = sorted((p for p in points if p.uniform), key=lambda p: p.params)
    searched = [p for p in points if not p.uniform]
    front = [p for p in result.front if math.isfinite(p.auc_test)]
    _set_axes(fig, result, points)
    _add_budget(fig, result)
    _add_bayes(fig, result, points)
    if uniform:
        _add_uniform(fig, result, uniform)
    _add_points(fig, result, [p for p in searched if not p.feasible], _OVER)
    if len(front) > 1:
        _add_front(fig, front)
    _add_points(fig, result, [p for p in searched if p.feasible and p is not result.best], _INSIDE)
    _add_points(fig, result, [p for p in points if p is result.best], _BEST)
    return fig


def _subtitle(result: Result, points: Sequence[Point]) -> str:
    parts = [f"{safe(result.title)} · {safe(result.strategy)} · {safe(result.backbone)}"]
    if any(p.seeds > 1 for p in points):
        parts.append("bars: ± one standard deviation between seeds")
    bayes = bayes_auc(result)
    if bayes is not None and points and not _fits(bayes, points):
        parts.append(f"Bayes AUC (best possible) {metric(bayes)}, above the chart")
    return " · ".join(parts)


def _heights(points: Sequence[Point]) -> tuple[float, float]:
    """The lowest and the highest point, error bars included, with a margin for labels."""
    low = min(p.auc_test - p.auc_test_std for p in points)
    high = max(p.auc_test + p.auc_test_std for p in points)
    margin = 0.09 * (high - low) or 0.002
    return low - margin, high + margin


def _fits(bayes: float, points: Sequence[Point]) -> bool:
    """Whether the chart stays readable with a line at the Bayes AUC in it."""
    low, high = _heights(points)
    return bayes - high <= _SQUASHED * (high - low)


def _set_axes(fig: go.Figure, result: Result, points: Sequence[Point]) -> None:
    params = [p.params for p in points] + [result.budget["params"]]
    low, high = min(params), max(params)
    bottom, top = _heights(points)
    bayes = bayes_auc(result)
    if bayes is not None and _fits(bayes, points):
        top = max(top, bayes + 0.06 * (bayes - bottom))
    axis: dict[str, Any] = {"title": "Embedding parameters", "tickformat": "~s"}
    if low > 0 and high / low >= _WIDE_RANGE:  # a logarithm has no place for size 0 in every field
        margin = 0.05 * math.log10(high / low)
        axis |= {"type": "log", "range": [math.log10(low) - margin, math.log10(high) + margin]}
        axis |= _log_ticks(low, high)
    else:
        margin = 0.06 * (high - low) or 0.5 * high or 1
        axis |= {"range": [low - margin, high + margin]}
    fig.update_xaxes(axis)
    fig.update_yaxes(title="Test AUC", range=[bottom, top])


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 times the powers of ten: plotly's own crowd, and mix 7k with 10k in two rows."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    values = [step * 10.0**decade for decade in decades for step in steps]
    return {"tickvals": values, "ticktext": [human(value) for value in values]}


def _add_budget(fig: go.Figure, result: Result) -> None:
    budget = result.budget["params"]
    at = fig.layout.xaxis
    log = at.type == "log"
    right = 10 ** at.range[1] if log else at.range[1]
    place = math.log10(budget) if log else budget  # annotations on a log axis take the logarithm, shapes the value
    fig.add_shape(
        type="rect",
        x0=budget,
        x1=max(right, budget) * 1000,
        y0=0,
        y1=1,
        yref="paper",
        fillcolor="#F5F6F8",
        line_width=0,
        layer="below",
    )
    line = {"color": style.BUDGET, "width": 1.5, "dash": "dash"}
    fig.add_shape(type="line", x0=budget, x1=budget, y0=0, y1=1, yref="paper", line=line, layer="below")
    share = percent(budget / max(result.full["params"], 1))
    fig.add_annotation(
        text=f"<b>Budget {human(budget)}</b> ({share} of full)",
        x=place,
        y=1,
        yref="paper",
        yanchor="bottom",
        xanchor="right" if (place - at.range[0]) > 0.6 * (at.range[1] - at.range[0]) else "center",
        showarrow=False,
        font={"size": 12, "color": style.BUDGET},
    )


def _add_bayes(fig: go.Figure, result: Result, points: Sequence[Point]) -> None:
    bayes = bayes_auc(result)
    if bayes is None or not _fits(bayes, points):
        return
    line = {"color": style.BAYES, "width": 1.5, "dash": "dot"}
    fig.add_shape(type="line", x0=0, x1=1, xref="paper", y0=bayes, y1=bayes, line=line)
    fig.add_annotation(
        text=f"Bayes AUC (best possible) {metric(bayes)}",
        x=0.01,
        xref="paper",
        xanchor="left",
        y=bayes,
        yanchor="top",
        showarrow=False,
        font={"size": 12, "color": style.BAYES},
    )


def _bars(points: Sequence[Point], color: str) -> dict[str, Any] | None:
    if not any(p.seeds > 1 for p in points):
        return None
    return {"type": "data", "array": [p.auc_test_std for p in points], "color": color, "thickness": 1.3, "width": 4}


def _add_points(
    fig: go.Figure,
    result: Result,
    points: Sequence[Point],
    look: _Look,
) -> None:
    if not points:
        return
    hollow = look.symbol.endswith("open")
    edge = {"width": 2, "color": look.color} if hollow else {"width": 1.5, "color": style.PAPER}
    fig.add_scatter(
        x=[p.params for p in points],
        y=[p.auc_test for p in points],
        error_y=_bars(points, look.color),
        mode="markers",
        name=look.name,
        marker={"color": look.color, "symbol": look.symbol, "size": look.size, "line": edge},
        legendrank=look.rank,
        hovertext=[hover(result, p) for p in points],
        hoverinfo="text",
    )


def _add_uniform(fig: go.Figure, result: Result, points: Sequence[Point]) -> None:
    inside = [p.feasible for p in points]
    fig.add_scatter(
        x=[p.params for p in points],
        y=[p.auc_test for p in points],
        error_y=_bars(points, style.UNIFORM),
        mode="lines+markers+text",
        name="Uniform size",
        legendrank=4,
        line={"color": style.UNIFORM, "width": 1.8, "dash": "dot"},
        marker={
            "color": [style.UNIFORM if ok else style.PAPER for ok in inside],
            "symbol": "square",
            "size": 9,
            "line": {"width": 2, "color": style.UNIFORM},
        },
        text=[f"<b>{uniform_size(p)}</b>" for p in points],
        textposition="bottom right",
        textfont={"size": 12, "color": "#9A5F00"},
        cliponaxis=False,
        hovertext=[hover(result, p) for p in points],
        hoverinfo="text",
    )


def _add_front(fig: go.Figure, front: Sequence[Point]) -> None:
    fig.add_scatter(
        x=[p.params for p in front],
        y=[p.auc_test for p in front],
        mode="lines",
        name="Front",
        legendrank=1,
        line={"color": style.FRONT, "width": 2.5, "shape": "hv"},
        hoverinfo="skip",
    )
