"""``optuna-aes compare``: one search per strategy and seed, and the table that sets them side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
from rich import box
from rich.console import Console
from rich.table import Table

from optuna_aes.cli import request
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.run import console_for
from optuna_aes.cli.strategy import strategy_of
from optuna_aes.cli.tables import percent
from optuna_aes.cli.values import Amount, Numbers
from optuna_aes.data import Dataset
from optuna_aes.errors import InputError
from optuna_aes.search.compare import Comparison, Estimate, Row, Run, compare
from optuna_aes.search.read import open_record
from optuna_aes.strategies.base import OneShot

LEGEND = (
    "± one standard deviation between seeds · volume: mean of 2·AUC − 1 over the logarithm of the budget, up to full size · "
    "seconds, trainings: of fit and search, the latter in trainings at full size · agree: share of fields with equal sizes "
    "under two seeds · sd log2: of a field's size between seeds · τ: inherited against retrained AUC"
)


def run_compare(
    options: SearchOptions,
    *,
    strategies: Sequence[str],
    seeds: int,
    shares: Sequence[float],
    trainings: int,
    html: Path | None,
    markdown: Path | None,
) -> None:
    """Runs what is not done yet, and compares.

    Args:
        options: Of every search; name, strategy, seed, budget and levels are set for each.
        strategies: Names of strategies.
        seeds: How many seeds of each.
        shares: Where to compare, as shares of the full-size parameters: the largest is every search's budget, and each is
            a level at which one choice of sizes is picked and trained.
        trainings: Trials of strategies that train each of them from scratch.
        html: Where the figures go, if anywhere.
        markdown: Where the table goes, if anywhere.

    Raises:
        InputError: If something is out of range; nothing has been run then.
    """
    if seeds < 1:
        raise InputError(f"--seeds {seeds} is out of range: give at least 1")
    if not strategies or not all(0 < share <= 1 for share in shares) or not shares:
        raise InputError("give one strategy or more, and shares in (0, 1]")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    levels = tuple(share / max(shares) for share in sorted(set(shares), reverse=True))
    options = replace(options, budget=Amount(max(shares)), levels=Numbers(levels))
    # The uniform sizes are the same for all strategies of a seed: the first one trains them.
    asked = [
        _asked(options, strategy, seed, reference=options.reference and strategy == strategies[0], trainings=trainings)
        for seed in range(options.seed, options.seed + seeds)
        for strategy in strategies
    ]
    for one in asked:
        request.prepare(one, picks_at=levels)
    console = console_for(options.json)
    dataset = request.open_data(options)
    for number, one in enumerate(asked, 1):
        if not options.quiet:
            console.print(f"[bold]{one.name}[/bold]  [dim]{number} of {len(asked)}[/dim]")
        _run(one, dataset, console, before=asked[: number - 1])
    runs = [Run.of(open_record(one.name or "", options.storage)) for one in asked]
    found = compare(runs, shares)
    if html is not None:
        from optuna_aes.visualization import compare_report

        compare_report(found, html, name=options.name or "")
    if markdown is not None:
        markdown.write_text(to_markdown(found), encoding="utf-8")
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    elif not options.quiet:
        print_comparison(console, found)


def _asked(options: SearchOptions, strategy: str, seed: int, *, reference: bool, trainings: int) -> SearchOptions:
    name = f"{options.name}.{strategy.replace(':', '-')}.{seed}"
    one = replace(options, strategy=strategy, seed=seed, name=name, reference=reference)
    return one if isinstance(strategy_of(one), OneShot) else replace(one, trials=trainings)


def _lender(one: SearchOptions, before: Sequence[SearchOptions]) -> str | None:
    """The search whose supernet this one would train again, if there is one."""
    mine = strategy_of(one)
    if not isinstance(mine, OneShot):
        return None
    for other in before:
        theirs = strategy_of(other)
        if (
            other.seed == one.seed
            and isinstance(theirs, OneShot)
            and theirs.fit_settings == mine.fit_settings
            and theirs.every_size == mine.every_size
        ):
            return other.name
    return None


def _run(one: SearchOptions, dataset: Dataset, console: Console, *, before: Sequence[SearchOptions]) -> None:
    wish = request.wish_of(one, picks_at=tuple(one.levels))
    others = [other.name or "" for other in before]
    with progress_for(console, quiet=one.quiet) as progress:
        request.create(wish, dataset, progress, supernet_of=_lender(one, before), trained_by=others).run()


def print_comparison(console: Console, found: Comparison) -> None:
    """Prints a table: a row for each strategy, and one for the uniform sizes."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for at, heading in enumerate(headings(found)):
        table.add_column(heading, justify="left" if at == 0 else "right", no_wrap=True)
    for cells in rows(found):
        table.add_row(*cells)
    console.print(table, soft_wrap=True)
    console.print(LEGEND, style="dim")


def to_markdown(found: Comparison) -> str:
    """The same table in Markdown."""
    lines = [headings(found), ["---"] * len(headings(found)), *rows(found)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def headings(found: Comparison) -> list[str]:
    """Of the table's columns."""
    aucs = [f"AUC at {percent(share)}" for share in found.shares]
    return ["strategy", *aucs, "volume", "seconds", "trainings", "agree", "sd log2", "τ"]


def rows(found: Comparison) -> list[list[str]]:
    """The table's cells, a list for each row."""
    uniform = ["uniform sizes", *(_shown(found.uniform[s]) for s in found.shares), *[""] * 6]
    return [*(_cells(row, found.shares) for row in found.rows), uniform]


def _cells(row: Row, shares: Sequence[float]) -> list[str]:
    return [
        row.strategy,
        *(_shown(row.auc[s]) for s in shares),
        _shown(row.hypervolume),
        _shown(row.cost, digits=0),
        _shown(row.trainings, digits=1),
        "" if row.agreement is None else f"{row.agreement:.2f}",
        "" if row.log2_std is None else f"{row.log2_std:.2f}",
        _shown(row.tau, digits=2),
    ]


def _shown(value: Estimate | None, *, digits: int = 4) -> str:
    if value is None:
        return "–"
    spread = f" ± {value.std:.{digits}f}".replace(" 0.", " .") if value.count > 1 else ""
    return f"{value.mean:.{digits}f}{spread}"
