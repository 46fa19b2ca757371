"""``optuna-aes search``: the run itself, and what is printed before, during and after it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import optuna
from rich.console import Console
from rich.text import Text

from optuna_aes.cli import request
from optuna_aes.cli.options import STORAGE, SearchOptions
from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.tables import percent, print_points
from optuna_aes.search.results import Result
from optuna_aes.search.search import Search
from optuna_aes.storage import safe_url


def run_search(options: SearchOptions) -> None:
    """Runs a search from wherever it stands to its end."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wish = request.prepare(options)
    console = console_for(options.json)
    with progress_for(console, quiet=options.quiet) as progress:
        dataset = request.open_data(options, progress)
        progress.encoded(sum(dataset.rows.values()), len(dataset.schema.fields))
        search = request.create(wish, dataset, progress)
        if not options.quiet:
            print_header(console, search, source=options.data or "")
        if options.no_run:
            _print_worker(console, search, options)
            return
        result = search.run(workers=options.workers)
    if options.json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    elif not options.quiet:
        _print_outcome(console, result, options.storage)


def _print_worker(console: Console, search: Search, options: SearchOptions) -> None:
    """Says how workers are started, to a person or a program."""
    data, origin = search.record.data["folder"], search.record.data.get("origin")
    if options.json:
        print(
            json.dumps(
                {"study": search.record.name, "data": origin or data, "stages": search.status()["stages"]}, indent=2
            )
        )
    elif not options.quiet:
        storage = f"--storage {shlex.quote(safe_url(options.storage))} " if options.storage != STORAGE else ""
        command = f"optuna-aes worker {storage}--name {shlex.quote(search.record.name)}"
        lines = {
            "created": "nothing is trained yet",
            "worker": command,
            "data": f"{origin}, fetched" if origin else f"elsewhere: --data FOLDER (or s3://…), a copy of {data}",
        }
        for name, text in lines.items():
            console.print(Text.assemble("  ", (f"{name:<8}", "dim"), text), soft_wrap=True)


def console_for(json: bool) -> Console:
    """Where progress goes: stdout, or stderr where stdout is for a program to read."""
    console = Console(stderr=json, highlight=False)
    return console if console.is_terminal else Console(stderr=json, highlight=False, width=120)


def print_header(console: Console, search: Search, *, source: str) -> None:
    """What is searched, in four lines."""
    context, dataset = search.context, search.context.task.dataset
    budget, rows = context.budget, dataset.rows
    sizes = " ".join(map(str, context.space.candidates))
    values = sum(dataset.schema.cardinalities.values())
    lines = {
        "search": f"{search.record.name} · {context.strategy.name} on {context.task.model.backbone} · sizes {sizes}",
        "data": f"{source} · {rows['train']:,} + {rows['valid']:,} + {rows['test']:,} rows · "
        f"{len(dataset.schema.fields)} fields · {values:,} values",
        "budget": f"{budget.params:,} of {budget.full_params:,} embedding parameters ({percent(budget.fraction)})",
        "storage": safe_url(search.record.storage.url),
    }
    for name, text in lines.items():
        console.print(Text.assemble("  ", (f"{name:<8}", "dim"), text), soft_wrap=True)


def _print_outcome(console: Console, result: Result, storage: str) -> None:
    if not result.points:
        console.print("no sizes were retrained: ask for some with --retrain")
        return
    console.print()
    print_points(console, result)
    print_next_steps(console, result, storage)


def print_next_steps(console: Console, result: Result, storage: str) -> None:
    """The commands that make something of the result."""
    where = f"--name {shlex.quote(result.study)}"
    if storage != STORAGE:
        where += f" --storage {shlex.quote(safe_url(storage))}"
    steps = {"report": f"pareto {where} --html {_file(result.study)}.html"}
    if result.best is not None:
        steps["export"] = f"export {where} --out {_file(result.study)}-model"
    console.print()
    for name, command in steps.items():
        console.print(Text.assemble((f"{name:<8}", "dim"), f"optuna-aes {command}"), soft_wrap=True)


def _file(name: str) -> str:
    """A file's name made of a search's."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(name).name) or "search"
