"""``optuna-aes status --watch``: the search as it is now, drawn anew every second or two."""

from __future__ import annotations

import time

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optuna_aes.cli.progress import seconds_text
from optuna_aes.cli.tables import status_table
from optuna_aes.search.read import Record
from optuna_aes.search.watch import View, Watch, Worker

UNIT = {"fit": "epochs/min", "search": "trials/min", "retrain": "trainings/min"}


def watch(console: Console, record: Record, *, every: float = 2.0) -> None:
    """Shows a search until it is done, or Ctrl-C.

    Args:
        console: Where to; elsewhere than in a terminal it is a line now and then.
        record: The search.
        every: Seconds between two looks.
    """
    looks = Watch(record)
    view = looks.look()
    if not console.is_terminal:
        while True:
            console.print(one_line(view), soft_wrap=True)
            if view.stage is None:
                return
            time.sleep(every)
            view = looks.look()
    with Live(drawn(view, looks.epochs), console=console, auto_refresh=False) as live:
        while view.stage is not None:
            time.sleep(every)
            view = looks.look()
            live.update(drawn(view, looks.epochs), refresh=True)


def drawn(view: View, epochs: int) -> RenderableType:
    """Stages, speed and workers."""
    parts: list[RenderableType] = [
        status_table(view.status, epochs=epochs),
        Text.assemble("  ", (_speed(view), "cyan")),
    ]
    if view.workers:
        parts.append(_workers(view))
    return Group(*parts)


def one_line(view: View) -> str:
    """The same for a log."""
    stages = " · ".join(f"{stage} {c['finished']}/{c['requested']}" for stage, c in view.status["stages"].items())
    alive = sum(worker.alive for worker in view.workers)
    return f"{stages} · {alive} workers · {_speed(view)}"


def _speed(view: View) -> str:
    failed = sum(counts["failed"] for counts in view.status["stages"].values())
    parts = ["done" if view.stage is None else f"{view.stage}"]
    if view.stage is not None and view.per_minute is not None:
        parts.append(f"{view.per_minute:.3g} {UNIT[view.stage]}")
    if view.eta is not None:
        parts.append(f"{seconds_text(view.eta)} left")
    parts += [f"{view.stale} stale"] * bool(view.stale) + [f"{failed} failed"] * bool(failed)
    return " · ".join(parts)


def _workers(view: View) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for heading in ("Worker", "Device", "Doing", "Seen"):
        table.add_column(heading)
    for worker in view.workers:
        table.add_row(
            f"{worker.host} {worker.pid}",
            worker.device,
            worker.doing,
            f"{worker.silent:.0f} s ago",
            style=_style(worker),
        )
    return table


def _style(worker: Worker) -> str | None:
    if not worker.alive:
        return "red"
    return "dim" if worker.doing == "waiting" else None
