"""``optuna-aes stability``: the same search with several seeds, and how far the sizes agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from optuna_aes.cli.fleet import Fleet
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.run import console_for
from optuna_aes.cli.strategy import strategy_of
from optuna_aes.cli.tables import markdown_table, percent
from optuna_aes.errors import InputError
from optuna_aes.search.compare import Run
from optuna_aes.search.read import open_record
from optuna_aes.search.search import Search
from optuna_aes.search.stability import Agreement, Stability, StabilityRow
from optuna_aes.space import Sizes
from optuna_aes.strategies.base import OneShot

LEGEND = (
    "share of fields with the same size under two seeds, mean over pairs of seeds · search: seeds of the search, on one "
    "supernet · whole: seeds of supernet and search · sd log2: standard deviation of log2 of a field's size, mean over budgets"
)


def run_stability(fleet: Fleet, *, html: Path | None, markdown: Path | None) -> None:
    """Runs what is not done yet, and tells how far the seeds agree.

    Args:
        fleet: The searches, each with a supernet of its own.
        html: Where the figures go, if anywhere.
        markdown: Where the table goes, if anywhere.

    Raises:
        InputError: If something cannot be run; nothing has been run then.
    """
    if fleet.seeds < 2:
        raise InputError(f"--seeds {fleet.seeds} leaves nothing to compare: give at least 2")
    options, own = fleet.options, fleet.searches()
    for one in own:
        if not isinstance(strategy_of(one), OneShot):
            raise InputError(f"strategy={one.strategy!r} has no supernet to search twice: leave it out")
    first = {one.strategy: one for one in own if one.seed == options.seed}
    shared = [_on(first[one.strategy], one) for one in own if one.seed != options.seed]
    fleet.check([*own, *shared])
    console = console_for(options.json)
    lent = {one.name or "": first[one.strategy].name or "" for one in shared}
    fleet.run([*own, *shared], _pick, console, lent=lent)
    rows = [
        StabilityRow.of(
            name,
            _picked(fleet, [first[name], *(s for s in shared if s.strategy == name)]),
            _picked(fleet, [s for s in own if s.strategy == name]),
        )
        for name in fleet.names
    ]
    found = Stability(tuple(sorted(set(fleet.shares))), fleet.seeds, tuple(rows))
    if html is not None:
        from optuna_aes.visualization import stability_report

        stability_report(found, html, name=options.name or "")
    if markdown is not None:
        markdown.write_text(markdown_table([headings(found), *cells(found)]), encoding="utf-8")
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    elif not options.quiet:
        print_stability(console, found)


def _on(first: SearchOptions, one: SearchOptions) -> SearchOptions:
    """The search of a seed on the supernet of the first."""
    return replace(one, name=f"{first.name}.shared.{one.seed}", reference=False)


def _pick(search: Search) -> None:
    search.run(["fit", "search"])
    search.picks()


def _picked(fleet: Fleet, searches: list[SearchOptions]) -> dict[float, list[Sizes]]:
    runs = [Run.of(open_record(one.name or "", fleet.options.storage)) for one in searches]
    return {
        share: [sizes for run in runs if (sizes := run.picked(share)) is not None]
        for share in sorted(set(fleet.shares))
    }


def print_stability(console: Console, found: Stability) -> None:
    """Prints a table: a row for each strategy."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for at, heading in enumerate(headings(found)):
        table.add_column(heading.replace(" ", "\n", 1), justify="left" if at == 0 else "right")
    for row in cells(found):
        table.add_row(*row)
    console.print(table)
    console.print(LEGEND, style="dim")


def headings(found: Stability) -> list[str]:
    """Of the table's columns."""
    parts = [f"{kind} {percent(share)}" for kind in ("search", "whole") for share in found.shares]
    return ["strategy", *parts, "search, mean", "whole, mean", "search, sd log2", "whole, sd log2"]


def cells(found: Stability) -> list[list[str]]:
    """The table's cells, a list for each row."""
    return [
        [
            row.strategy,
            *(_same(row.search[share]) for share in found.shares),
            *(_same(row.whole[share]) for share in found.shares),
            *(_same(Agreement.mean(list(kind.values()))) for kind in (row.search, row.whole)),
            *(_spread(Agreement.mean(list(kind.values()))) for kind in (row.search, row.whole)),
        ]
        for row in found.rows
    ]


def _same(found: Agreement | None) -> str:
    return "–" if found is None else f"{found.same:.2f}"


def _spread(found: Agreement | None) -> str:
    return "–" if found is None else f"{found.log2_std:.2f}"
