"""Which field got which size, along the front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from optuna_aes.search.results import Point, Result
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._text import human, metric, percent, safe, short, uniform_size

_ROW = 27
_ROOM_FOR_AUC = 16
_ROOM_ON_A_PHONE = 12
_ROOM_FOR_TEXT = 40
_ZERO = -1.0  # where size 0 stands on the scale of log2(size): as far below 1 as 1 is below 2


def plot_sizes(result: Result, rows: Mapping[str, int] | None = None) -> go.Figure:
    """Plots a heat map of the embedding sizes, fields downward and the front's points from small to large.

    Where no point fits the budget there is no front, and all points are shown.

    Args:
        result: The retrained points of a study.
        rows: Rows of each field's table. With them the fields are ordered by what they cost at full size; without, by the
            mean size that they were given.

    Returns:
        A plotly figure. Its height grows with the number of fields.
    """
    front = result.front
    points = sorted(front or result.points, key=lambda p: p.params)
    fields = _ordered(points, rows)
    step = math.ceil(len(points) / _ROOM_ON_A_PHONE) or 1
    title = "Embedding size of each field along the front" if front or not points else "Embedding size of each field"
    fig = style.figure(
        title,
        _subtitle(bool(front), rows),
        height=190 + _ROW * max(len(fields), 3),
        narrow={
            "coloraxis.showscale": False,
            "margin": {"l": 40, "r": 8, "t": 12, "b": 50},
            "xaxis.tickvals": list(range(0, len(points), step)),
            "xaxis.ticktext": [_column(p, result, narrow=True) for p in points[::step]],
            "xaxis.tickangle": -90 if len(points) > 6 else 0,
            "yaxis.ticktext": [safe(short(f, 16)) for f in fields],
            **({"data.0.texttemplate": ""} if len(points) > _ROOM_ON_A_PHONE else {}),
        },
    )
    if not points:
        return style.message(fig, "No retrained points yet")
    _add_cells(fig, points, fields, rows)
    _set_axes(fig, result, points, fields, rows)
    return fig


def _subtitle(has_front: bool, rows: Mapping[str, int] | None) -> str:
    order = "fields with the largest tables first" if rows else "fields with the largest sizes first"
    return order if has_front else f"no point fits the budget: all points are shown · {order}"


def _ordered(points: Sequence[Point], rows: Mapping[str, int] | None) -> list[str]:
    names = list(dict.fromkeys(name for p in points for name in p.sizes))
    if rows:
        return sorted(names, key=lambda name: -rows.get(name, 0))
    # Uniform points say nothing of a field.
    told = [p for p in points if not p.uniform] or points
    return sorted(names, key=lambda name: -sum(p.sizes.get(name, 0) for p in told))


def _level(size: int | None) -> float | None:
    if size is None:
        return None
    return math.log2(size) if size > 0 else _ZERO


def _add_cells(fig: go.Figure, points: Sequence[Point], fields: Sequence[str], rows: Mapping[str, int] | None) -> None:
    used = sorted({size for p in points for size in p.sizes.values()})
    top = max(_level(max(used, default=1)) or 0.0, 1.0)
    fig.add_heatmap(
        x=list(range(len(points))),
        y=list(range(len(fields))),
        z=[[_level(p.sizes.get(name)) for p in points] for name in fields],
        text=[[str(p.sizes.get(name, "")) for p in points] for name in fields],
        texttemplate="%{text}" if len(points) <= _ROOM_FOR_TEXT else None,
        textfont={"size": 12},
        hovertext=[[_hover(p, name, rows) for p in points] for name in fields],
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=2,
        ygap=2,
    )
    fig.update_layout(
        coloraxis={
            "cmin": _ZERO,
            "cmax": top,
            "colorscale": [
                [0, "#F3F5F8"],
                [0.5 / (top - _ZERO), "#E4EFF8"],
                [0.4, "#A5CDE8"],
                [0.7, "#3A8CC1"],
                [1, "#0A3D6B"],
            ],
            "colorbar": {
                "title": {"text": "Size", "font": {"size": 12}},
                "tickvals": [_level(size) for size in used],
                "ticktext": [str(size) for size in used],
                "len": 240,
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
            },
        }
    )


def _set_axes(
    fig: go.Figure, result: Result, points: Sequence[Point], fields: Sequence[str], rows: Mapping[str, int] | None
) -> None:
    plain = {"showgrid": False, "showline": False, "ticks": ""}
    fig.update_xaxes(
        plain,
        title="Embedding parameters of the point",
        tickvals=list(range(len(points))),
        ticktext=[_column(p, result, narrow=len(points) > _ROOM_FOR_AUC) for p in points],
        tickfont={"color": style.INK},
        tickangle=-90 if len(points) > _ROOM_FOR_AUC else 0,
    )
    fig.update_yaxes(
        plain,
        autorange="reversed",
        tickvals=list(range(len(fields))),
        ticktext=[_row(name, rows) for name in fields],
        tickfont={"color": style.INK},
        ticklabelstandoff=6,
    )
    fig.update_layout(margin={"l": 80, "r": 28, "t": 84, "b": 70})


def _column(point: Point, result: Result, *, narrow: bool) -> str:
    mark = "★ " if point is result.best else ""
    label = f"{mark}<b>{human(point.params)}</b>"
    if narrow:
        return label
    kind = f"uniform {uniform_size(point)}" if point.uniform else metric(point.auc_test)
    return f"{label}<br>{kind}"


def _row(name: str, rows: Mapping[str, int] | None) -> str:
    label = safe(short(name))
    if not rows or name not in rows:
        return label
    return f'{label} <span style="color:{style.MUTED}">· {human(rows[name])} rows</span>'


def _hover(point: Point, name: str, rows: Mapping[str, int] | None) -> str:
    size = point.sizes.get(name)
    kind = f"uniform {uniform_size(point)}" if point.uniform else f"trial {point.trial}"
    lines = [f"<b>{safe(short(name, 60))}</b>: size {'–' if size is None else size}"]
    if rows and name in rows and size is not None:
        own = rows[name] * size
        share = f" · {percent(own / point.params)} of the point" if point.params else ""
        lines.append(f"{rows[name]:,} rows · {own:,} params{share}")
    lines.append(f"{kind} · {point.params:,} params · test AUC {metric(point.auc_test)}")
    return "<br>".join(lines)
