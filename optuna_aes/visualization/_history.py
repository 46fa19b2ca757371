"""How the search went: the supernet's epochs, and the scored subnets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from optuna_aes.search.results import History
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._text import human, metric

_DRAWN = 4000  # an SVG of more points is slow to draw and tells no more
_FIT_SHARE = 0.2


class _Subnet(NamedTuple):
    number: int
    auc: float
    params: int


def plot_history(history: History, budget_params: int) -> go.Figure:
    """Plots the inherited validation AUC of the scored subnets by trial number, and the fit's epochs beside it.

    Subnets far below all others are drawn at the lower edge, pointing down; their AUC is in the hover text.

    Args:
        history: How the search went.
        budget_params: Parameters of the budget. The running best counts only subnets inside it.

    Returns:
        A plotly figure.
    """
    scored = [_Subnet(*row) for row in zip(history.numbers, history.aucs, history.params, strict=True)]
    subnets = sorted(s for s in scored if math.isfinite(s.auc))
    fit = [(epoch, auc) for epoch, auc in enumerate(history.epochs, start=1) if math.isfinite(auc)]
    inside = [s for s in subnets if s.params <= budget_params]
    over = [s for s in subnets if s.params > budget_params]
    drawn_inside, drawn_over = _thinned(inside), _thinned(over)
    fig = style.figure(
        "Search history",
        _subtitle(subnets, len(drawn_inside) + len(drawn_over)),
        height=470,
        narrow=_narrow(both=bool(fit and subnets)),
    )
    if not fit and not subnets:
        return style.message(fig, "No epoch trained and no subnet scored yet")
    _set_axes(fig, has_fit=bool(fit), has_search=bool(subnets), epochs=len(history.epochs))
    if fit:
        _add_fit(fig, fit)
    if subnets:
        axes = {"xaxis": "x2", "yaxis": "y2"}
        floor = _floor([s.auc for s in subnets])
        fig.update_layout(yaxis2={"range": style.lone_range([s.auc for s in subnets])})
        _add_over(fig, drawn_over, axes, floor)
        _add_inside(fig, drawn_inside, axes, floor)
        _add_running_best(fig, inside, subnets[-1].number, axes, floor)
    return fig


def _thinned(subnets: Sequence[_Subnet]) -> Sequence[_Subnet]:
    return subnets[:: math.ceil(len(subnets) / _DRAWN)] if len(subnets) > _DRAWN else subnets


def _floor(aucs: Sequence[float]) -> float:
    """The least AUC that is drawn at its height: a few subnets next to nothing would press all others into a line."""
    low, high = float(np.quantile(aucs, 0.05)), max(aucs)
    floor = low - (high - low) / 4
    return floor if min(aucs) < low - (high - low) else -math.inf


def _subtitle(subnets: Sequence[_Subnet], drawn: int) -> str:
    if not subnets:
        return "no subnet scored yet"
    counted = f"{len(subnets):,} subnet{'s' if len(subnets) != 1 else ''} scored with the supernet's weights"
    return counted if drawn == len(subnets) else f"{counted}, {drawn:,} of them drawn"


def _narrow(*, both: bool) -> dict[str, object]:
    """On a phone the two panels stand one above the other, and the colour bar lies below them."""
    changes: dict[str, object] = {
        "height": 640 if both else 460,
        "margin": {"l": 48, "r": 12, "t": 12, "b": 40},
        **style.bar_below(-0.13),
    }
    if both:
        changes |= {
            "legend.y": 0.61,
            "legend.yanchor": "bottom",
            "xaxis.domain": [0, 1],
            "yaxis.domain": [0.76, 1],
            "xaxis2.domain": [0, 1],
            "yaxis2.domain": [0, 0.6],
        }
    return changes


def _set_axes(fig: go.Figure, *, has_fit: bool, has_search: bool, epochs: int) -> None:
    both = has_fit and has_search
    if has_fit:
        fig.update_layout(
            xaxis={
                "title": "Epoch of the supernet",
                "domain": [0, _FIT_SHARE if both else 1],
                "dtick": max(1, math.ceil(epochs / 5)),
                "range": [0.5, epochs + 0.5],
            },
            yaxis={"title": "Validation AUC"},
        )
    if has_search:
        fig.update_layout(
            xaxis2={"title": "Search trial", "domain": [_FIT_SHARE + 0.1 if both else 0, 1], "anchor": "y2"},
            yaxis2={"title": "Inherited validation AUC", "anchor": "x2"},
        )


def _add_fit(fig: go.Figure, fit: Sequence[tuple[int, float]]) -> None:
    fig.add_scatter(
        x=[epoch for epoch, _ in fit],
        y=[auc for _, auc in fit],
        mode="lines+markers",
        name="Supernet",
        line={"color": style.BAYES, "width": 2.2},
        marker={"size": 7},
        hovertext=[f"<b>Epoch {epoch}</b><br>validation AUC {metric(auc)}" for epoch, auc in fit],
        hoverinfo="text",
        showlegend=False,
    )


def _hover(subnet: _Subnet, note: str = "") -> str:
    return f"<b>Trial {subnet.number}</b>{note}<br>inherited AUC {metric(subnet.auc)}<br>{subnet.params:,} params"


def _heights(subnets: Sequence[_Subnet], floor: float) -> list[float]:
    return [max(s.auc, floor) for s in subnets]


def _symbols(subnets: Sequence[_Subnet], floor: float, symbol: str) -> list[str]:
    """What is drawn at the floor and lies below it points down."""
    return [symbol if s.auc >= floor else symbol.replace("circle", "triangle-down") for s in subnets]


def _add_over(fig: go.Figure, subnets: Sequence[_Subnet], axes: dict[str, str], floor: float) -> None:
    if subnets:
        fig.add_scatter(
            x=[s.number for s in subnets],
            y=_heights(subnets, floor),
            mode="markers",
            name="Over budget",
            marker={
                "color": style.OVER,
                "size": 7,
                "symbol": _symbols(subnets, floor, "circle-open"),
                "line": {"width": 1.5},
            },
            hovertext=[_hover(s, " · over budget") for s in subnets],
            hoverinfo="text",
            **axes,
        )


def _add_inside(fig: go.Figure, subnets: Sequence[_Subnet], axes: dict[str, str], floor: float) -> None:
    if not subnets:
        return
    fig.add_scatter(
        x=[s.number for s in subnets],
        y=_heights(subnets, floor),
        mode="markers",
        name="Subnet inside the budget",
        marker={
            "symbol": _symbols(subnets, floor, "circle"),
            "color": [s.params for s in subnets],
            "coloraxis": "coloraxis",
            "size": 7,
            "line": {"width": 0.6, "color": style.PAPER},
        },
        hovertext=[_hover(s) for s in subnets],
        hoverinfo="text",
        showlegend=False,  # the colour bar tells what they are
        **axes,
    )
    style.colour_by_params(fig, [s.params for s in subnets])


def _add_running_best(
    fig: go.Figure, subnets: Sequence[_Subnet], last: int, axes: dict[str, str], floor: float
) -> None:
    rises: list[_Subnet] = []
    for subnet in subnets:
        if not rises or subnet.auc > rises[-1].auc:
            rises.append(subnet)
    if not rises:
        return
    fig.add_scatter(
        x=[*(s.number for s in rises), last],
        y=_heights([*rises, rises[-1]], floor),
        mode="lines",
        name="Best so far",
        line={"color": style.BEST, "width": 2.5, "shape": "hv"},
        hovertext=[f"<b>Best so far</b>: {metric(s.auc)} at {human(s.params)} params" for s in [*rises, rises[-1]]],
        hoverinfo="text",
        **axes,
    )
