"""Strategies side by side: test AUC at each budget, and what finding it cost."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from optuna_aes.search.compare import Comparison, Estimate
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._page import CSS, PAGE, SCRIPT
from optuna_aes.visualization._text import percent, safe

_WIDE = 30
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "hexagon", "pentagon")
_COLORS = (style.FRONT, style.BEST, style.RUNNING, style.BAYES, "#56B4E9", "#B8860B", "#6A5ACD", style.MUTED)


def plot_compare(found: Comparison) -> go.Figure:
    """Plots mean test AUC at each budget, a line for each strategy, with one standard deviation between seeds.

    Args:
        found: What :func:`optuna_aes.search.compare.compare` gave.
    """
    fig = style.figure("Test AUC at equal memory", "bars: ± one standard deviation between seeds", height=520)
    ticks = list(range(len(found.shares)))
    lines = [(row.strategy, row.auc) for row in found.rows]
    for at, (name, aucs) in enumerate(lines):
        # Strategies stand a little apart, or their bars would hide each other.
        apart = 0.5 * (at - (len(lines) - 1) / 2) / max(len(lines), 1)
        color = _COLORS[at % len(_COLORS)]
        _add(
            fig, name, [x + apart for x in ticks], [aucs[s] for s in found.shares], color, _SYMBOLS[at % len(_SYMBOLS)]
        )
    for x, share in zip(ticks, found.shares, strict=True):
        known = found.uniform[share]
        if known is not None:
            line = {"color": style.UNIFORM, "width": 2, "dash": "dot"}
            fig.add_shape(type="line", x0=x - 0.4, x1=x + 0.4, y0=known.mean, y1=known.mean, line=line)
    if any(found.uniform.values()):
        line = {"color": style.UNIFORM, "width": 2, "dash": "dot"}
        fig.add_scatter(x=[None], y=[None], mode="lines", name="Uniform sizes, interpolated", line=line)
    fig.update_xaxes(
        title="Budget, share of the full-size parameters", tickvals=ticks, ticktext=[percent(s) for s in found.shares]
    )
    fig.update_yaxes(title="Test AUC")
    return fig


def plot_cost(found: Comparison) -> go.Figure:
    """Plots what each strategy's fit and search cost, in trainings of the full-size model."""
    fig = style.figure("Cost of the search", "fit and scoring, without retraining", height=_height(found))
    costs = {row.strategy: row.trainings.mean for row in found.rows if row.trainings is not None}
    if not costs:
        return style.message(fig, "No full-size training to measure against")
    _bars(fig, costs, "{:.1f}")
    # Bars that start at 0 can be compared by length; those of a search that trains every trial would hide the others.
    wide = max(costs.values()) > _WIDE * min(costs.values())
    fig.update_xaxes(title="Trainings of the full-size model", type="log" if wide else "linear")
    return fig


def plot_stability(found: Comparison) -> go.Figure:
    """Plots how often a field has the same size under two seeds."""
    fig = style.figure("Stability of the sizes", "mean over pairs of seeds, fields and budgets", height=_height(found))
    agreements = {row.strategy: row.agreement for row in found.rows if row.agreement is not None}
    if not agreements:
        return style.message(fig, "Two seeds are needed to tell")
    _bars(fig, agreements, "{:.2f}")
    fig.update_xaxes(title="Share of fields with the same size", range=[0, 1.08])
    return fig


def _height(found: Comparison) -> int:
    return 150 + 34 * len(found.rows)


def _bars(fig: go.Figure, values: Mapping[str, float], form: str) -> None:
    fig.add_bar(
        x=list(values.values())[::-1],
        y=list(values)[::-1],
        orientation="h",
        marker={"color": style.FRONT},
        text=[form.format(value) for value in values.values()][::-1],
        textposition="outside",
        cliponaxis=False,
    )


def _add(
    fig: go.Figure, name: str, xs: Sequence[float], values: Sequence[Estimate | None], color: str, symbol: str
) -> None:
    known = [(x, v) for x, v in zip(xs, values, strict=True) if v is not None]
    fig.add_scatter(
        x=[x for x, _ in known],
        y=[v.mean for _, v in known],
        error_y={"type": "data", "array": [v.std for _, v in known], "thickness": 1.3, "width": 3},
        mode="markers",
        name=name,
        marker={"size": 10, "color": color, "symbol": symbol, "line": {"width": 1, "color": style.PAPER}},
        hovertemplate=f"{safe(name)}<br>test AUC %{{y:.4f}}<extra></extra>",
    )


def compare_report(found: Comparison, path: str | os.PathLike[str], *, name: str) -> Path:
    """Writes the figures to one HTML file that works offline.

    Args:
        found: What was compared.
        path: The file.
        name: Of the comparison.
    """
    figures = [plot_compare(found), plot_cost(found), plot_stability(found)]
    return figures_report(figures, path, over="optuna_aes · comparison", name=name)


def figures_report(figures: Sequence[go.Figure], path: str | os.PathLike[str], *, over: str, name: str) -> Path:
    """Writes figures below each other to one HTML file that works offline.

    Args:
        figures: With a title and a subtitle in their ``meta``, see :mod:`optuna_aes.visualization._style`.
        path: The file.
        over: A line above the heading.
        name: The heading.
    """
    sections = []
    for at, fig in enumerate(figures):
        meta = fig.layout.meta
        fig.update_layout(title=None, margin={"t": 24})
        data = json.dumps(json.loads(fig.to_json())).replace("</", "<\\/")
        sections.append(
            f"<section><h2>{meta['title']}</h2><p class=note>{meta['subtitle']}</p>"
            f'<div class="figure" data-figure="f{at}"></div>'
            f'<script type="application/json" id="f{at}">{data}</script></section>'
        )
    body = f"<header><p class=over>{safe(over)}</p><h1>{safe(name)}</h1></header>" + "".join(sections)
    page = PAGE.substitute(title=safe(name), css=CSS, body=body, plotly=get_plotlyjs(), script=SCRIPT)
    out = Path(path)
    out.write_text(page, encoding="utf-8")
    return out
