"""``optuna-aes compare``: one search per strategy and seed, and the table that sets them side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from optuna_aes.cli.fleet import Fleet
from optuna_aes.cli.run import console_for
from optuna_aes.cli.tables import markdown_table, percent
from optuna_aes.search.compare import Comparison, Estimate, Row, Run, compare
from optuna_aes.search.read import open_record
from optuna_aes.search.search import Search

# Columns from which on the table of a comparison fits one piece.
WIDE = 140

LEGEND = (
    "± one standard deviation between seeds · volume: mean of 2·AUC − 1 over the logarithm of the budget, up to full size · "
    "− …: less that of the first strategy under the same seed · "
    "seconds, trainings: of fit and search, the latter in trainings at full size · agree: share of fields with equal sizes "
    "under two seeds · sd log2: of a field's size between seeds · τ: inherited against retrained AUC"
)


def run_compare(fleet: Fleet, *, html: Path | None, markdown: Path | None) -> None:
    """Runs what is not done yet, and compares.

    Args:
        fleet: The searches.
        html: Where the figures go, if anywhere.
        markdown: Where the table goes, if anywhere.

    Raises:
        InputError: If something cannot be run; nothing has been run then.
    """
    options, asked = fleet.options, fleet.searches()
    fleet.check(asked)
    console = console_for(options.json)
    fleet.run(asked, Search.run, console)
    found = compare([Run.of(open_record(one.name or "", options.storage)) for one in asked], fleet.shares)
    if html is not None:
        from optuna_aes.visualization import compare_report

        compare_report(found, html, name=options.name or "")
    if markdown is not None:
        markdown.write_text(to_markdown(found), encoding="utf-8")
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    elif not options.quiet:
        print_comparison(console, found)


def print_comparison(console: Console, found: Comparison) -> None:
    """Prints a row for each strategy and one for the uniform sizes; a narrow terminal has the costs in a table below."""
    lines = [headings(found), *rows(found)]
    aucs = 1 + len(found.shares)
    parts = [range(len(lines[0]))] if console.width >= WIDE else [range(aucs), [0, *range(aucs, len(lines[0]))]]
    for part in parts:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, header_style="dim")
        for at in part:
            table.add_column(lines[0][at], justify="right" if at else "left", no_wrap=not at)
        for line in lines[1:]:
            if any(line[at] for at in part[1:]):
                table.add_row(*(line[at] for at in part))
        console.print(table)
    console.print(LEGEND, style="dim")


def to_markdown(found: Comparison) -> str:
    """The same table in Markdown."""
    return markdown_table([headings(found), *rows(found)])


def headings(found: Comparison) -> list[str]:
    """Of the table's columns."""
    aucs = [f"AUC at {percent(share)}" for share in found.shares]
    return ["strategy", *aucs, "volume", f"− {found.rows[0].strategy}", "seconds", "trainings", "agree", "sd log2", "τ"]


def rows(found: Comparison) -> list[list[str]]:
    """The table's cells, a list for each row."""
    uniform = ["uniform sizes", *(_shown(found.uniform[s]) for s in found.shares), *[""] * 7]
    return [*(_cells(row, found.shares) for row in found.rows), uniform]


def _cells(row: Row, shares: Sequence[float]) -> list[str]:
    return [
        row.strategy,
        *(_shown(row.auc[s]) for s in shares),
        _shown(row.hypervolume),
        "" if row.lead is None else _shown(row.lead, sign="+"),
        _shown(row.cost, digits=0),
        _shown(row.trainings, digits=1),
        "" if row.agreement is None else f"{row.agreement:.2f}",
        "" if row.log2_std is None else f"{row.log2_std:.2f}",
        _shown(row.tau, digits=2),
    ]


def _shown(value: Estimate | None, *, digits: int = 4, sign: str = "") -> str:
    if value is None:
        return "–"
    spread = f" ±{value.std:.{digits}f}".replace("±0.", "±.") if value.count > 1 else ""
    return f"{value.mean:{sign}.{digits}f}{spread}"
