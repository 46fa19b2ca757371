"""One HTML file that shows what a search found, to anyone, without a network."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from optuna_aes.errors import InputError
from optuna_aes.search.results import History, Point, Result
from optuna_aes.visualization import _style as style
from optuna_aes.visualization._history import plot_history
from optuna_aes.visualization._inherited import plot_inherited
from optuna_aes.visualization._page import CSS, PAGE, SCRIPT
from optuna_aes.visualization._pareto import plot_pareto
from optuna_aes.visualization._sizes import plot_sizes
from optuna_aes.visualization._text import (
    full_point,
    human,
    human_bytes,
    human_seconds,
    metric,
    of_full,
    percent,
    safe,
    share_of_bayes,
    short,
    signed,
    size_counts,
    spread,
    uniform_size,
)


def report(
    result: Result, history: History, path: str | os.PathLike[str], *, rows: Mapping[str, int] | None = None
) -> Path:
    """Writes a self-contained HTML page: the outcome in words, the figures, and a table of all points.

    The page loads nothing from elsewhere. It appears under its name complete or not at all.

    Args:
        result: The retrained points of a study.
        history: How the search went.
        path: The file to write; one that exists is replaced.
        rows: Rows of each field's table, if known: see :func:`plot_sizes`.

    Returns:
        The file's path.

    Raises:
        InputError: If no point is retrained yet, or the file cannot be written.
    """
    path = Path(path)
    if not result.points:
        raise InputError(
            f"study {result.study!r} has no retrained points yet: let its search finish a retraining first"
        )
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; create it, or choose another place")
    page = PAGE.substitute(
        title=f"{safe(result.title)} · embedding sizes",
        css=CSS,
        body="\n".join([_header(result), _tiles(result), *_sections(result, history, rows), _footer()]),
        plotly=get_plotlyjs(),
        script=SCRIPT,
    )
    _write(path, page)
    return path


def _write(path: Path, text: str) -> None:
    """Writes beside the target and moves it there, so that a reader never sees half a page."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _header(result: Result) -> str:
    return f"""<header>
<p class="over">Embedding size search</p>
<h1>{safe(result.title)}</h1>
<p class="lead">{_lead(result)}</p>
</header>"""


def _retrained(result: Result) -> str:
    """What of the retraining was another than the search's."""
    if not result.variant:
        return ""
    return ", trained on from inherited weights" if result.variant == "inherited" else ", then retrained"


def _lead(result: Result) -> str:
    limit, full = result.budget, result.full
    setting = (
        f"Searched with <b>{safe(result.strategy)}</b>{_retrained(result)} on a <b>{safe(result.backbone)}</b> backbone, "
        "under a budget of "
        f"{human(limit['params'])} embedding parameters: {percent(limit['params'] / max(full['params'], 1))} of the "
        f"{human(full['params'])} that full-size tables hold."
    )
    best = result.best
    if best is None:
        return f"{setting} No searched point fits the budget yet, so there is none to recommend."
    saved = 1 - of_full(result, best)
    outcome = (
        f" The best point <b>saves {percent(saved)}</b> of the parameters and reaches a test AUC of "
        f"<b>{metric(best.auc_test)}</b>"
    )
    reference = full_point(result)
    if reference is None:
        return f"{setting}{outcome}."
    gap = best.auc_test - reference.auc_test
    size = uniform_size(reference)
    if abs(gap) < 0.00005:
        return f"{setting}{outcome}, the same as size {size} for every field."
    word = "above" if gap > 0 else "below"
    return f"{setting}{outcome}, {abs(gap):.4f} {word} size {size} for every field."


def _tile(label: str, value: str, note: str, kind: str = "") -> str:
    return f'<dl class="tile {kind}"><dt>{label}</dt><dd class="value">{value}</dd><dd>{note}</dd></dl>'


def _tiles(result: Result) -> str:
    best, full = result.best, result.full
    budget = _tile(
        "Budget",
        human(result.budget["params"]),
        f"params · {human_bytes(result.budget['bytes'])}",
    )
    size = _tile("Full size", human(full["params"]), f"params · {human_bytes(full['bytes'])}")
    if best is None:
        return f'<div class="tiles">{budget}{size}</div>'
    reference = full_point(result)
    seeds = f"mean of {best.seeds} seeds" if best.seeds > 1 else "one seed"
    against = seeds if reference is None else f"{signed(best.auc_test - reference.auc_test)} to full size"
    if best.seeds > 1:
        against = f"± {metric(best.auc_test_std)} · {against}"
    tiles = [
        _tile("Best point", human(best.params), f"params · {percent(1 - of_full(result, best))} saved", "best"),
        _tile("Test AUC", metric(best.auc_test), against),
        _tile("Validation AUC", metric(best.auc_valid), seeds),
        budget,
        size,
    ]
    share = share_of_bayes(result, best)
    if share is not None:
        bayes = metric(float(result.facts["bayes_auc"]))
        tiles.append(_tile("Share of the possible", share, f"of the Bayes AUC {bayes}, above 0.5"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _sections(result: Result, history: History, rows: Mapping[str, int] | None) -> list[str]:
    parts = [_figure("pareto", plot_pareto(result)), _figure("sizes", plot_sizes(result, rows)), _table(result)]
    if sum(p.auc_inherited is not None and not p.uniform for p in result.points) > 1:
        parts.append(_figure("inherited", plot_inherited(result)))
    if history.numbers or history.epochs:
        parts.append(_figure("history", plot_history(history, result.budget["params"])))
    return [*parts, _next_steps(result, history)]


def _figure(name: str, fig: go.Figure) -> str:
    """A figure's section. Titles become text of the page, which wraps on a phone as a figure's cannot."""
    title, note = fig.layout.meta["title"], fig.layout.meta["subtitle"]
    top = 52 if name == "pareto" else 14  # above the front stand the budget's label and, above that, the buttons
    fig.update_layout(title=None, margin={"t": top}, height=fig.layout.height - 50)
    # Inside a script element only "<" can end the element; JSON may write it as an escape.
    data = fig.to_json().replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f"""<section>
<h2>{title}</h2>
<p class="note">{note}</p>
<div class="figure" data-figure="data-{name}" role="img" aria-label="{title}"></div>
<script type="application/json" id="data-{name}">{data}</script>
</section>"""


def _table(result: Result) -> str:
    head = (
        '<tr><th class="text">Point</th><th>Params</th><th>of full</th><th>Bytes</th><th>AUC valid</th>'
        '<th>AUC test</th><th>Log loss</th><th>Seeds</th><th class="text">Sizes</th></tr>'
    )
    front = {id(p) for p in result.front}
    points = sorted(result.points, key=lambda p: (p.params, p.uniform))
    body = "\n".join(_row(result, p, on_front=id(p) in front) for p in points)
    return f"""<section>
<h2>All points</h2>
<p class="note">metrics are means over the seeds; ± is one standard deviation between them</p>
<div class="scroll"><table><thead>{head}</thead><tbody>
{body}
</tbody></table></div>
</section>"""


def _row(result: Result, point: Point, *, on_front: bool) -> str:
    best = point is result.best
    tags = [("uniform", f"uniform {uniform_size(point)}")] if point.uniform else []
    tags += [("best", "best")] if best else []
    tags += [("front", "front")] if on_front else []
    tags += [] if point.feasible else [("out", "over budget")]
    name = "" if point.uniform else f"trial {point.trial} "
    marks = "".join(f'<span class="tag {kind}">{text}</span>' for kind, text in tags)
    kind = "best" if best else "" if point.feasible else "out"
    cells = [
        f"{point.params:,}",
        percent(of_full(result, point)),
        human_bytes(point.bytes),
        metric(point.auc_valid),
        spread(point),
        metric(point.logloss_test),
        str(point.seeds),
    ]
    numbers = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{kind}"><td class="text">{name}{marks}</td>{numbers}<td class="text">{_sizes(point)}</td></tr>'


def _sizes(point: Point) -> str:
    if point.uniform:
        return f"all {uniform_size(point)}"
    chips = "".join(
        f'<span title="{safe(name).replace(chr(34), "&quot;")}">{safe(short(name, 40))} <b>{size}</b></span>'
        for name, size in point.sizes.items()
    )
    return f'<details><summary>{size_counts(point.sizes)}</summary><div class="chips">{chips}</div></details>'


def _next_steps(result: Result, history: History) -> str:
    names = {"fit": "Supernet training", "search": "Search", "retrain": "Retraining"}
    stages = [f"<li>{safe(names.get(k, k))} <b>{human_seconds(s)}</b></li>" for k, s in history.seconds.items()]
    parts = []
    if stages:
        total = f"<li>Together <b>{human_seconds(sum(history.seconds.values()))}</b></li>" if len(stages) > 1 else ""
        parts.append(f'<section>\n<h2>Time</h2>\n<ul class="stages">{"".join(stages)}{total}</ul>\n</section>')
    if result.best is not None:
        how = (
            "--inherited "
            if result.variant == "inherited"
            else f"--backbone {result.variant} "
            if result.variant
            else ""
        )
        command = f"optuna-aes export --name {shlex.quote(result.study)} {how}--storage URL --out model/"
        parts.append(
            "<section>\n<h2>Take the best point</h2>\n"
            '<p class="note">writes its right-sized model; add --trial N for another point of the table</p>\n'
            f"<pre>{safe(command)}</pre>\n</section>"
        )
    return "\n".join(parts)


def _footer() -> str:
    return (
        "<footer>Parameters count the embedding tables. The best point is chosen by validation AUC; the front is drawn by "
        "test AUC and decides nothing. "
        f'Made with optuna_aes.</footer>\n<noscript><p style="color:{style.MUTED}">The figures need JavaScript; '
        "the table does not.</p></noscript>"
    )
