"""What a search found, and how far it is, for a terminal of 80 columns or more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optuna_aes.search.results import Point, Result

STAGES = {"fit": "supernet", "search": "sizes scored in it", "retrain": "best from scratch"}
SEQUENCE = 40  # columns that the sizes of a point may take before they are only counted


def status_table(status: Mapping[str, Any], *, epochs: int) -> RenderableType:
    """How far each stage is.

    Args:
        status: What :func:`optuna_aes.search.read.status` gave.
        epochs: Epochs of the fit.
    """
    title = Text.assemble((status["study"], "bold"), (f"  {status['strategy']}", "dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("Stage", style="bold")
    table.add_column("")
    for heading in ("Done", "Running", "Failed", "Pruned"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis")
    for stage, counts in status["stages"].items():
        done, total = counts["finished"], counts["requested"]
        part, whole, what = done, total, STAGES[stage]
        if stage == "fit":
            part, whole = (epochs, epochs) if done else (counts["epochs"], epochs)
            what += f", epoch {counts['epochs']} of {epochs}"
        table.add_row(
            stage,
            ProgressBar(total=max(whole, 1), completed=part, width=16, finished_style="green"),
            f"{done}/{total}",
            _count(counts["running"], "cyan"),
            _count(counts["failed"], "red"),
            _count(counts["pruned"], "yellow"),
            Text(what, style="dim"),
        )
    return Group(title, table)


def print_points(console: Console, result: Result) -> None:
    """Prints the retrained points by parameters, with the front and the best of them marked."""
    fields = list(result.points[0].sizes)
    full, budget = result.full["params"], result.budget["params"]
    console.print(
        Text.assemble(
            (result.title, "bold"),
            (f"  {result.strategy} · {result.backbone} · budget {budget:,} of {full:,} embedding parameters ", "dim"),
            (f"({percent(budget / full)})", "dim"),
        ),
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    table.add_column("", width=1)
    for heading in ("Trial", "Params", "of full", "AUC valid", "AUC test"):
        table.add_column(heading, justify="right", no_wrap=True)
    bayes = result.facts.get("bayes_auc")
    if bayes:
        table.add_column("of best\npossible", justify="right", no_wrap=True)
    as_sequence = _fits_as_sequence(result.points)
    table.add_column("Sizes", no_wrap=not as_sequence)
    front, best = {p.trial for p in result.front}, result.best
    for point in result.points:
        mark = Text("★", "yellow") if point is best else Text("●", "green") if point.trial in front else Text("")
        share = [percent(_bayes_share(point.auc_test, bayes))] if bayes else []
        table.add_row(
            mark,
            str(point.trial),
            f"{point.params:,}",
            percent(point.params / full),
            f"{point.auc_valid:.4f}",
            f"{point.auc_test:.4f}" + (f" ± {point.auc_test_std:.4f}" if point.seeds > 1 else ""),
            *share,
            sizes_text(point, fields, as_sequence=as_sequence),
            style=None if point.feasible else "dim",
        )
    console.print(table)
    legend = ["★ best on validation inside the budget: what export takes", "● on the front"]
    if any(not p.feasible for p in result.points):
        legend.append("dim: over budget")
    console.print(Text(" · ".join(legend), style="dim"), soft_wrap=True)
    if as_sequence:
        console.print(Text(f"sizes in the order {' '.join(fields)}", style="dim"), soft_wrap=True)


def sizes_text(point: Point, fields: Sequence[str], *, as_sequence: bool) -> str:
    """The sizes of a point in few columns: ``all 8``; or one for each field, in their order; or how often each occurs."""
    sizes = [point.sizes[f] for f in fields]
    if len(set(sizes)) == 1:
        return f"all {sizes[0]}"
    if as_sequence:
        return " ".join(f"{size:>2}" for size in sizes)
    return "  ".join(f"{size}×{count}" for size, count in sorted(Counter(sizes).items(), reverse=True))


def _fits_as_sequence(points: Sequence[Point]) -> bool:
    return max(3 * len(p.sizes) for p in points) <= SEQUENCE


def percent(share: float) -> str:
    """A share as a percentage, with a decimal where it is small or near to all."""
    return f"{100 * share:.1f} %" if share < 0.1 or 0.9 < share < 1 else f"{100 * share:.0f} %"


def _bayes_share(auc: float, bayes: float) -> float:
    from optuna_aes.data.synthetic import bayes_share

    return bayes_share(auc, bayes)


def _count(number: int, style: str) -> Text:
    return Text(str(number), style=style if number else "dim")


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; the first row is the headings."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
