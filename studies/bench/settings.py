"""The tasks that the benchmarks share: planted data, and Frappe where FRAPPE_DIR says it is."""

from __future__ import annotations

import os
from pathlib import Path

from optuna_aes.cli.demo import demo_task
from optuna_aes.data import EncodeOptions, dataset_for
from optuna_aes.data.synthetic import planted
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.training import TrainOptions
from optuna_aes.search.task import Task


def planted_task(seed: int = 0) -> Task:
    """The task of ``optuna-aes demo``."""
    return demo_task(planted(seed=seed))


def frappe_task() -> Task:
    """Frappe with the leaderboard's settings, as in studies/frappe_adass.toml."""
    folder = os.environ.get("FRAPPE_DIR")
    if not folder:
        raise SystemExit("set FRAPPE_DIR to the folder that shared/data/build_frappe.py wrote")
    data = dataset_for(
        Path(folder), cache_dir=Path(".optuna_aes/datasets"), format="auto", options=EncodeOptions(label="label")
    )
    model = ModelOptions(hidden=(400, 400, 400), batch_norm=True, dropout=0.2, init_std=1e-4)
    train = TrainOptions(epochs=30, batch_size=4096, lr=1e-3, l2=0.05, decay="all", patience=2)
    return Task(data, model=model, train=train, threads=1)


def task_of(name: str, seed: int = 0) -> Task:
    """The task of that name, ``planted`` or ``frappe``."""
    return planted_task(seed) if name == "planted" else frappe_task()
