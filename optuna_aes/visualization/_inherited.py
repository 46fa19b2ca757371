"""Whether the supernet's ranking means something: inherited scores against retrained ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from optuna_aes.search.results import Point, Result
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._text import hover, metric

_ENOUGH = 3


def plot_inherited(result: Result) -> go.Figure:
    """Plots the AUC that sizes had in the supernet against what they reach when trained from scratch.

    Both are validation AUCs. From three points on, the title holds Kendall's tau between them.

    Args:
        result: The retrained points of a study.

    Returns:
        A plotly figure.
    """
    known = [(p, p.auc_inherited) for p in result.points if not p.uniform and p.auc_inherited is not None]
    known = [(p, auc) for p, auc in known if math.isfinite(auc) and math.isfinite(p.auc_valid)]
    points, inherited = [p for p, _ in known], [auc for _, auc in known]
    fig = style.figure(
        "Inherited against retrained AUC" + _tau(points, inherited),
        "each point: one choice of sizes, scored in the supernet and then trained from scratch",
        height=470,
        narrow={
            "height": 440,
            "margin": {"l": 48, "r": 12, "t": 12, "b": 40},
            **style.bar_below(-0.22),
        },
    )
    if not points:
        return style.message(fig, "No retrained point has an inherited AUC")
    fig.add_scatter(
        x=inherited,
        y=[p.auc_valid for p in points],
        mode="markers",
        name="Searched",
        marker={
            "color": [p.params for p in points],
            "coloraxis": "coloraxis",
            "size": 12,
            "line": {"width": 1, "color": [style.BUDGET if p.feasible else style.OVER for p in points]},
        },
        hovertext=[f"{hover(result, p)}<br>inherited AUC {metric(auc)}" for p, auc in known],
        hoverinfo="text",
    )
    fig.update_xaxes(title="Inherited validation AUC (supernet)", range=style.lone_range(inherited))
    fig.update_yaxes(title="Retrained validation AUC", range=style.lone_range([p.auc_valid for p in points]))
    style.colour_by_params(fig, [p.params for p in points])
    return fig


def _tau(points: Sequence[Point], inherited: Sequence[float]) -> str:
    """Kendall's tau as a title's ending: nothing below three points, or where all scores are equal."""
    if len(points) < _ENOUGH:
        return ""
    from scipy.stats import kendalltau  # 70 MiB, which only this figure needs

    tau = float(kendalltau(inherited, [p.auc_valid for p in points]).statistic)
    return f": Kendall τ = {tau:.2f}".replace("-", "−") if math.isfinite(tau) else ""
