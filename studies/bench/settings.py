"""The tasks that the benchmarks share: planted data, and Frappe as its recipe has it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from optuna_aes.cli import request
from optuna_aes.cli.demo import demo_task
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.recipe import merged
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import AesError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.task import Task
from optuna_aes.strategies.adass.strategy import AdaSS

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


def frappe_strategy() -> AdaSS:
    """The strategy of the same recipe."""
    strategy = request.wish_of(merged(str(FRAPPE), asdict(SearchOptions()), [])).strategy
    assert isinstance(strategy, AdaSS)
    return strategy


def task_of(name: str, seed: int = 0) -> Task:
    """The task of that name, ``planted`` or ``frappe``."""
    return planted_task(seed) if name == "planted" else frappe_task()


def wide_fields(vocabulary: int, count: int = 26) -> tuple[PlantedField, ...]:
    """Fields of a click table as wide as Criteo's: a few large ones hold nearly all values, every fourth is noise.

    Args:
        vocabulary: Distinct values of all fields together, roughly.
        count: How many fields.
    """
    ladder = np.geomspace(1.0, vocabulary / 24.0, count)
    values = np.maximum(4, ladder * (vocabulary / ladder.sum())).astype(int)
    ranks = (4, 2, 1, 0)
    return tuple(
        PlantedField(f"f{i:02d}", int(n), ranks[i % 4], main=0.0 if i % 4 == 3 else 0.4) for i, n in enumerate(values)
    )


def wide_task(
    vocabulary: int, rows: tuple[int, int, int], *, model: ModelOptions, train: TrainOptions, seed: int = 0
) -> Task:
    """Planted data of 26 fields."""
    return Task(planted(wide_fields(vocabulary), rows=rows, seed=seed), model=model, train=train, threads=1)
