"""How far several seeds of a search agree: bars for each strategy, and the sizes that each seed picked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from optuna_aes.search.stability import Agreement, Stability
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._compare import figures_report
from optuna_aes.visualization._text import percent, safe


def plot_agreement(found: Stability) -> go.Figure:
    """Plots for every strategy how often a field has the same size under two seeds, with one supernet and with several.

    Args:
        found: What :mod:`optuna_aes.search.stability` made of the searches.
    """
    fig = style.figure(
        "Stability of the sizes",
        f"share of fields with the same size under two of {found.seeds} seeds, mean over budgets",
        height=190 + 58 * len(found.rows),
    )
    names = [safe(row.strategy) for row in found.rows][::-1]
    kinds = (
        ("Seeds of supernet and search", "whole", style.UNIFORM),
        ("Seeds of the search alone", "search", style.FRONT),
    )
    for title, kind, color in kinds:
        means = [Agreement.mean(list(getattr(row, kind).values())) for row in found.rows][::-1]
        values = [None if mean is None else mean.same for mean in means]
        fig.add_bar(
            x=values,
            y=names,
            orientation="h",
            name=title,
            marker={"color": color},
            text=["" if value is None else f"{value:.2f}" for value in values],
            textposition="outside",
            cliponaxis=False,
        )
    fig.update_layout(barmode="group", legend={"traceorder": "reversed"})
    fig.update_xaxes(title="Share of fields with the same size", range=[0, 1.08])
    return fig


def plot_picks(found: Stability, share: float) -> go.Figure:
    """Plots what every seed picked at one budget, a row for each strategy and seed, a column for each field.

    Args:
        found: See :func:`plot_agreement`.
        share: One of its budgets.
    """
    labels, table = [], []
    for row in found.rows[::-1]:
        for number, sizes in reversed(list(enumerate(row.sizes[share]))):
            labels.append(f"{safe(row.strategy)} · {number}")
            table.append(list(sizes.values()))
    fig = style.figure(
        f"What each seed picked at {percent(share)} of full size",
        "colour: embedding size; each supernet has a seed of its own",
        height=190 + 22 * len(labels),
    )
    if not table:
        return style.message(fig, "Nothing was picked at this budget")
    if len({len(sizes) for sizes in table}) > 1:
        return style.message(fig, "The strategies have different blocks")
    names = [safe(name) for name in next(s for row in found.rows for s in row.sizes[share])]
    fig.add_heatmap(
        x=names,
        y=labels,
        z=np.log2(np.maximum(table, 0.5)),
        text=table,
        texttemplate="%{text}",
        colorscale=style.PARAMS_SCALE,
        showscale=False,
        hovertemplate="%{y}<br>%{x}: size %{text}<extra></extra>",
    )
    return fig


def stability_report(found: Stability, path: str | os.PathLike[str], *, name: str) -> Path:
    """Writes the figures to one HTML file that works offline.

    Args:
        found: See :func:`plot_agreement`.
        path: The file.
        name: Of the searches.
    """
    figures = [plot_agreement(found), *(plot_picks(found, share) for share in found.shares)]
    return figures_report(figures, path, over="optuna_aes · stability", name=name)
