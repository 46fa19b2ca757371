"""What racing saves and what it loses: whole searches of one supernet, all subnets on all rows against parts of them first.

``python -m studies.bench.racing [--share 0.03125] [--seeds 4] [--write]``

The data, tower and budget of ``studies.bench.scoring``; CPU seconds per architecture, against a masked forward pass too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from optuna_aes import MemoryBudget
from optuna_aes.models.racing import WORTH, Known, Racer
from optuna_aes.search.compare import dominated
from optuna_aes.strategies.adass.policy import PolicyOptions, Problem, make_policy, propose
from studies.bench.results import write_section
from studies.bench.scoring import EVAL_BLOCK, GROUP, ROWS, Fitted, groups_of, seconds

BUDGET = 0.25


@dataclass(frozen=True)
class Found:
    """A search: hypervolume of its front, share of the subnets scored on all rows, CPU seconds of scoring one."""

    hypervolume: float
    full: float
    seconds: float


def search(fitted: Fitted, share: float, seed: int, trials: int) -> Found:
    """A search in groups; with a share of 0 it scores everything on all rows."""
    space = fitted.task.space
    budget = MemoryBudget(space, fraction=BUDGET)
    options = PolicyOptions(group=GROUP, horizon=trials)
    levels = tuple(budget.level(level).params for level in options.levels)
    problem = Problem(params=space.table_params, budgets=levels)
    policy, seen = make_policy(problem, options), set[bytes]()
    racer = Racer(fitted.scorer, share, box=(min(levels) // 2, budget.params)) if share else None
    paths = np.zeros((0, len(space)), dtype=np.int64)
    params, aucs, full, spent = np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=bool), 0.0
    for number in range(trials // GROUP):
        level = options.level_of(number * GROUP)
        rng = np.random.default_rng((seed, number))
        group = propose(policy, problem, level=level, count=GROUP, seen=seen, rng=rng)
        seen |= {row.tobytes() for row in group}
        used, whole = space.params_of(group), np.ones(GROUP, dtype=bool)
        started = time.process_time()
        if racer is None:
            found = fitted.scorer(group)
        else:
            found, rows = racer(group, used, Known(paths, params, aucs))
            whole = rows == len(fitted.scorer.labels)
        spent += time.process_time() - started
        policy.fold(group, found, level)
        paths, params = np.concatenate([paths, group]), np.concatenate([params, used])
        aucs, full = np.concatenate([aucs, found]), np.concatenate([full, whole])
    size = budget.full_params
    points = [(cost / size, auc) for cost, auc in zip(params[full], aucs[full], strict=True)]
    return Found(dominated(points, min(levels) / 2 / size), float(full.mean()), spent / trials)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.03125)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--trials", type=int, default=320)
    parser.add_argument("--rows", type=int, default=200_000, help="training rows of the supernet")
    parser.add_argument("--backbone", default="deepfm")
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    fitted = Fitted.of(given.backbone, given.rows)
    path = groups_of(fitted, trials=GROUP)[0][0]
    lines = [
        "| seed | all rows, ms | raced, ms | masked pass, ms | × masked pass | scored on all rows | hypervolume |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for seed in range(given.seeds):
        plain = search(fitted, 0.0, seed, given.trials)
        raced = search(fitted, given.share, seed, given.trials)
        masked = float(np.median([seconds(lambda: fitted.masked(path, EVAL_BLOCK)) for _ in range(5)]))
        lines.append(
            f"| {seed} | {1e3 * plain.seconds:.1f} | {1e3 * raced.seconds:.1f} | {1e3 * masked:.1f} "
            f"| {masked / raced.seconds:.1f} | {raced.full:.0%} | {raced.hypervolume / plain.hypervolume - 1:+.2%} |"
        )
        print(lines[-1], flush=True)
    if given.write:
        rows = f"{given.share:.2%} of {ROWS:,} rows first"
        title = f"Racing: {rows}, {given.backbone}, {given.trials} architectures, WORTH {WORTH}"
        write_section(title, "\n".join(lines))


if __name__ == "__main__":
    main()
