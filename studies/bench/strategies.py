"""Every strategy on planted data: hypervolume and share of the Bayes AUC at equal budgets, trials and seeds.

``python -m studies.bench.strategies [--seeds 1] [--strategies adass random …] [--storage sqlite:///strategies.db]``

Everything is stored as studies: a run that was stopped goes on. Real tables are compared by
``optuna-aes compare RECIPE``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import optuna
import torch
from rich.console import Console

from optuna_aes import Search
from optuna_aes.cli.compare import print_comparison, to_markdown
from optuna_aes.data.synthetic import bayes_share
from optuna_aes.search.compare import Run, compare, pick
from optuna_aes.search.read import open_record
from optuna_aes.strategies.base import OneShot
from optuna_aes.strategies.registry import STRATEGIES, strategy_class
from studies.bench.settings import planted_task

SHARES = (0.1, 0.175, 0.25)
# Trials that are trainings: as many as the issue of speed allows a search to cost, several times over.
TRAININGS = 20


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--storage", default="sqlite:///strategies.db")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    runs: list[Run] = []
    bayes: dict[int, float] = {}
    names: list[str] = []
    for seed in range(given.seeds):
        task = planted_task(seed)
        bayes[seed] = float((task.dataset.facts or {})["bayes_auc"])
        for name in given.strategies:
            strategy = strategy_class(name)()
            one_shot = isinstance(strategy, OneShot)
            lender = f"planted.{given.strategies[0]}.{seed}"
            shares_it = one_shot and strategy_class(given.strategies[0])().fit_settings == strategy.fit_settings
            search = Search.create(
                task,
                name=f"planted.{name}.{seed}",
                storage=given.storage,
                strategy=strategy,
                budget=SHARES[-1],
                trials=given.trials if one_shot else TRAININGS,
                picks_at=[share / SHARES[-1] for share in SHARES],
                reference=name == given.strategies[0],
                seed=seed,
                trained_by=names,
                supernet_of=lender if shares_it and name != given.strategies[0] else None,
            )
            search.run()
            names.append(f"planted.{name}.{seed}")
            runs.append(Run.of(open_record(f"planted.{name}.{seed}", given.storage)))
            print(_line(runs[-1], bayes[seed]), flush=True)
    found = compare(runs, SHARES)
    print_comparison(Console(width=160), found)
    print(to_markdown(found))


def _line(run: Run, bayes: float) -> str:
    best = pick(run.result, run.result.budget["params"])
    assert best is not None
    share = bayes_share(best.auc_test, bayes)
    return f"{run.strategy:14s} seed {run.seed}  Bayes share {share:.4f} at {best.params:6d} parameters"


if __name__ == "__main__":
    main()
