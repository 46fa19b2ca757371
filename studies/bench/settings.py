"""The tasks that the benchmarks share: planted data, and Frappe as its recipe has it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from optuna_aes.cli import request
from optuna_aes.cli.demo import demo_task
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.recipe import merged
from optuna_aes.data.synthetic import planted
from optuna_aes.errors import AesError
from optuna_aes.search.task import Task

FRAPPE = Path(__file__).parents[1] / "frappe_adass.toml"


def planted_task(seed: int = 0) -> Task:
    """The task of ``optuna-aes demo``."""
    return demo_task(planted(seed=seed))


def frappe_task() -> Task:
    """The task of the recipe ``studies/frappe_adass.toml``, on one thread."""
    try:
        options = merged(str(FRAPPE), {**asdict(SearchOptions()), "threads": 1}, ["threads"])
        return request.task_of(request.wish_of(options), request.open_data(options))
    except AesError as error:  # FRAPPE_DIR is not set, or not right
        raise SystemExit(str(error)) from None


def task_of(name: str, seed: int = 0) -> Task:
    """The task of that name, ``planted`` or ``frappe``."""
    return planted_task(seed) if name == "planted" else frappe_task()
