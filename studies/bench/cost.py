"""What does a search cost? CPU seconds of fit and scoring against one training of the full-size model, early-stopped alike.

``python -m studies.bench.cost planted|frappe [--trials 500] [--rows 1000000] [--race 0.03125] [--fit-epochs 20] [--write]``

Stated in CPU seconds of one thread, so that other work on the machine counts for little. Nothing is retrained.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import torch

from optuna_aes import CTRModel, ModelOptions, Search, Task, TrainOptions
from optuna_aes.models.precision import takes_bfloat16
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.adass.strategy import AdaSS
from studies.bench.results import write_section
from studies.bench.settings import frappe_strategy, frappe_task, wide_task

LIMIT = {"planted": 2.5, "frappe": 3.5}


def planted_million(rows: int) -> Task:
    """26 planted fields, stopped early by the default rule."""
    model = ModelOptions(backbone="deepfm", hidden=(128, 128, 128), init_std=0.1)
    train = TrainOptions(epochs=10, batch_size=4096, lr=5e-3, l2=1e-3)
    return wide_task(100_000, (rows, 100_000, 50_000), model=model, train=train)


def full_training(task: Task) -> tuple[float, int, float]:
    """CPU seconds, epochs and best validation AUC of the full-size model."""
    started = time.process_time()
    sizes = task.space.uniform(task.space.full)
    model = CTRModel(task.dataset.schema, sizes, dim=task.space.full, options=task.model)
    trainer = Trainer(model, task.dataset.train, task.dataset.valid, task.train)
    trainer.run()
    return time.process_time() - started, trainer.epoch, trainer.best_auc


def search_cost(task: Task, strategy: AdaSS, budget: float, trials: int) -> tuple[float, int, float, float]:
    """CPU seconds of fit, its epochs, CPU seconds of scoring, and the best inherited AUC."""
    with tempfile.TemporaryDirectory() as folder:
        search = Search.create(
            task,
            name="cost",
            storage=f"sqlite:///{Path(folder) / 'aes.db'}",
            strategy=strategy,
            budget=budget,
            trials=trials,
            retrain=0,
            reference=False,
        )
        started = time.process_time()
        search.run(["fit"])
        fitted = time.process_time()
        search.run(["search"])
        scored = time.process_time()
        history = search.history()
    return fitted - started, len(history.epochs), scored - fitted, max(history.aucs)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=tuple(LIMIT))
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rows", type=int, default=1_000_000, help="training rows of planted data")
    parser.add_argument(
        "--race", type=float, default=0.03125, help="share of the validation rows that come first; 0: all"
    )
    parser.add_argument(
        "--fit-epochs", type=int, help="of the supernet, at most; by default as the recipe has it, or a training"
    )
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    if given.data == "planted":
        task, strategy, budget = planted_million(given.rows), AdaSS(), 0.25
    else:
        task, strategy, budget = frappe_task(), frappe_strategy(), 0.5
    if given.fit_epochs:
        task = replace(task, fit=replace(task.train, epochs=given.fit_epochs))
    raced = replace(strategy, race=given.race)
    fit, fit_epochs, score, found = search_cost(task, raced, budget, given.trials)
    print(f"fit {fit:.1f} s, {fit_epochs} epochs; scoring {score:.1f} s, best inherited AUC {found:.4f}", flush=True)
    full, epochs, reached = full_training(task)
    scored = f"{given.trials} architectures scored" + (
        f", raced from {given.race:.2%} of the rows," if given.race else ""
    )
    lines = [
        "| what | CPU seconds | trainings | |",
        "|---|---|---|---|",
        f"| one training at full size | {full:.1f} | 1 | {epochs} epochs, validation AUC {reached:.4f} |",
        f"| fit | {fit:.1f} | {fit / full:.2f} | {fit_epochs} epochs |",
        f"| {scored} and recorded | {score:.1f} | {score / full:.2f} | {1000 * score / given.trials:.0f} ms each |",
        f"| search | {fit + score:.1f} | {(fit + score) / full:.2f} | wanted: at most {LIMIT[given.data]} |",
    ]
    print("\n".join(lines))
    rows = f"{task.dataset.rows['train']:,} + {task.dataset.rows['valid']:,} rows"
    title = f"A search of {given.trials} architectures, {given.data} ({rows})"
    title += f", {given.fit_epochs} epochs of fit" if given.fit_epochs else ""
    title += ", bfloat16" if takes_bfloat16(task.train, "cpu") else ""
    if given.write:
        write_section(title, "\n".join(lines))


if __name__ == "__main__":
    main()
