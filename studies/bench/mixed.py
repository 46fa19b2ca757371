"""iHAS against its controls on planted data of two hidden populations, for several seeds of data and search.

``python -m studies.bench.mixed [--seeds 5] [--budget 1.0] [--only NAME ...]``

Every search has the same budget for the tables of all clusters together, as a share of one full-size model; the router comes
on top and is told apart. The figures are those of the retrained sizes with the best validation AUC inside the budget.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna

from optuna_aes import ModelOptions, Search, Task, TrainOptions
from optuna_aes.data.synthetic import MIXED_FIELDS, bayes_share, planted
from optuna_aes.strategies.ihas.strategy import IHAS

TWO = IHAS(clusters=(2,), count_router=False, levels=(1.0,))
UNIFORM = "best uniform"
SEARCHES = {
    "one cluster": replace(TWO, control="one"),
    UNIFORM: replace(TWO, control="one"),
    "random": replace(TWO, control="random"),
    "unmasked": replace(TWO, control="unmasked"),
    "masked": replace(TWO, features="masked"),
    "gates": TWO,
    "gates, 4 clusters": replace(TWO, clusters=(4,)),
    "gates, warm": replace(TWO, warm=True),
    "gates, concrete": replace(TWO, gate="concrete"),
}


def mixed_task(seed: int) -> Task:
    """A DeepFM over two populations."""
    dataset = planted(MIXED_FIELDS, rows=(60_000, 20_000, 20_000), by="app", seed=seed)
    train = TrainOptions(epochs=12, batch_size=1024, lr=5e-3, l2=1e-4, schedule="cosine", patience=0)
    model = ModelOptions(hidden=(64, 32), init_std=0.1)
    return Task(dataset, model=model, train=train, candidates=tuple(range(9)), device="cpu", threads=1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", choices=SEARCHES, default=list(SEARCHES))
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(
        f"{'search':18s} {'test AUC':>8s} {'sd':>6s} {'Bayes share':>11s} {'over one':>8s} {'sd':>6s} {'tables':>7s} ",
        end="",
    )
    print(
        f"{'router':>7s} {'fit s':>6s} {'all s':>6s}  for a budget of {given.budget:.0%}, {given.seeds} seeds",
        flush=True,
    )
    single: list[float] = []
    for name in given.only:
        rows = np.array([_run(name, given.budget, seed) for seed in range(given.seeds)])
        single = single or rows[:, 0].tolist()
        gain, spread = rows[:, 0] - single, 1 if given.seeds > 1 else 0
        mean = rows.mean(0)
        print(
            f"{name:18s} {mean[0]:8.4f} {rows[:, 0].std(ddof=spread):6.4f} {mean[1]:11.4f} {gain.mean():+8.4f} "
            f"{gain.std(ddof=spread):6.4f} {mean[2]:7.0f} {mean[3]:7.0f} {mean[4]:6.0f} {mean[5]:6.0f}",
            flush=True,
        )


def _run(name: str, budget: float, seed: int) -> list[float]:
    task, started = mixed_task(seed), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        search = Search.create(
            task,
            name="mixed",
            storage=f"sqlite:///{Path(folder) / 'aes.db'}",
            strategy=SEARCHES[name],
            budget=budget,
            retrain=2,
            reference=name == UNIFORM,
            seed=seed,
        )
        result, fit = search.run(), search.history().seconds["fit"]
    points = [p for p in result.points if p.feasible and p.uniform == (name == UNIFORM)]
    best = max(points, key=lambda p: p.auc_valid)
    share = bayes_share(best.auc_test, (task.dataset.facts or {})["bayes_auc"])
    return [best.auc_test, share, best.params, best.router, fit, time.perf_counter() - started]


if __name__ == "__main__":
    main()
