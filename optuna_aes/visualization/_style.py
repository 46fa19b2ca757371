"""How all figures look: one template, one palette that colour-blind readers can tell apart, one way to title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

INK = "#16202E"
MUTED = "#5B6778"
FAINT = "#AAB3C0"
GRID = "#E8ECF1"
PAPER = "#FFFFFF"

# From the palette of Okabe and Ito; marker shapes repeat what the colours say.
FRONT = "#0072B2"
UNIFORM = "#E08A00"
BEST = "#C8401B"
RUNNING = "#00795C"
BAYES = "#9C4F83"
OVER = FAINT
BUDGET = "#3A4657"

PARAMS_SCALE = ["#C9E1F2", "#7FB8DD", "#3187BF", "#0B5C94", "#0A3358"]

FONT = 'Inter, "Segoe UI", -apple-system, BlinkMacSystemFont, Roboto, "Helvetica Neue", Arial, sans-serif'


def template() -> go.layout.Template:
    """The template that every figure of the package shares."""
    axis = {
        "gridcolor": GRID,
        "linecolor": FAINT,
        "showline": True,
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": FAINT,
        "tickfont": {"size": 12, "color": MUTED},
        "title": {"font": {"size": 13, "color": INK}, "standoff": 12},
        "zeroline": False,
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": PAPER,
            "plot_bgcolor": PAPER,
            "title": {"x": 0.0, "xref": "paper", "xanchor": "left", "font": {"size": 19, "color": INK}},
            "margin": {"l": 70, "r": 28, "t": 104, "b": 60},
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": -0.17,
                "yanchor": "top",
                "font": {"size": 13},
                "itemsizing": "trace",
            },
            "hoverlabel": {
                "align": "left",
                "bgcolor": PAPER,
                "bordercolor": FAINT,
                "font": {"family": FONT, "size": 13, "color": INK},
            },
            "coloraxis": {
                "colorscale": PARAMS_SCALE,
                "colorbar": {"thickness": 10, "outlinewidth": 0, "tickfont": {"size": 12, "color": MUTED}},
            },
            "hovermode": "closest",
        }
    )


def figure(title: str, subtitle: str, *, height: int, narrow: dict[str, Any] | None = None) -> go.Figure:
    """An empty figure in the package's style.

    Args:
        title: One line.
        subtitle: A second, smaller line; may be empty.
        height: Height in pixels.
        narrow: Settings that replace others on a narrow screen, by dotted path in the layout, or in the whole figure where
            it begins with ``data.``. plotly cannot do this itself: the report's script does, and finds them in ``meta``.
    """
    fig = go.Figure()
    fig.update_layout(template=template(), height=height)
    set_title(fig, title, subtitle)
    fig.layout.meta = {**fig.layout.meta, "narrow": {"dragmode": False, **(narrow or {})}}  # a finger scrolls the page
    return fig


def set_title(fig: go.Figure, title: str, subtitle: str) -> None:
    """Titles a figure, and keeps both lines in ``meta`` too, for the report sets them as text of the page."""
    below = f'<br><span style="font-size:13px;color:{MUTED}">{subtitle}</span>' if subtitle else ""
    fig.update_layout(title={"text": f"<b>{title}</b>{below}"})
    fig.layout.meta = {**(fig.layout.meta or {}), "title": title, "subtitle": subtitle}


def colour_by_params(fig: go.Figure, params: Sequence[int]) -> None:
    """Gives the shared colour axis its bar, unless there is but one colour to tell."""
    fig.update_layout(
        coloraxis={
            "showscale": len(set(params)) > 1,
            "colorbar": {"title": {"text": "Params", "font": {"size": 12}}, "tickformat": "~s"},
        }
    )


def bar_below(y: float) -> dict[str, object]:
    """Narrow settings that lay the colour bar below the chart."""
    bar = {"orientation": "h", "x": 0.5, "xanchor": "center", "y": y, "yanchor": "top", "title.side": "top"}
    return {f"coloraxis.colorbar.{key}": value for key, value in bar.items()}


def lone_range(values: Sequence[float]) -> list[float] | None:
    """A range around equal AUCs, which plotly would show between 0 and 2; None leaves the range to plotly."""
    return [values[0] - 0.005, values[0] + 0.005] if len(set(values)) == 1 else None


def message(fig: go.Figure, text: str) -> go.Figure:
    """Puts a line of text where a figure has nothing to draw yet."""
    fig.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 15, "color": MUTED}
    )
    fig.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    return fig
