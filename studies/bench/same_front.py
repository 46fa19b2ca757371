"""Compute until the same hypervolume: AdaS&S against ``retrain-tpe``, whose trials are trainings from scratch.

``python -m studies.bench.same_front [--wide] [--seeds 3] [--trainings 80] [--rows 120000] [--write]``

Both fronts are of validation AUC after training from scratch, once for each pick; seconds are of computing. AdaS&S's include
its fit, its search and the trainings of its picks. A seed is that of the planted data and of both searches. The box is that
of ``optuna-aes compare``, from 10 % of the full size on: AdaS&S is asked for budgets down to 7.5 %, and TPE for any, so that
below nobody is compared with what was not asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch

from optuna_aes import Search, Task
from optuna_aes.cli.demo import demo_task
from optuna_aes.data.synthetic import DEMO_FIELDS, planted
from optuna_aes.search.compare import dominated
from optuna_aes.search.records import SECONDS
from optuna_aes.strategies.baselines.scratch import RetrainTPE
from studies.bench.results import write_section
from studies.bench.settings import wide_fields

BUDGET, SMALLEST = 0.25, 0.1


@dataclass(frozen=True)
class Run:
    """Both searches with one seed.

    Args:
        stages: AdaS&S's seconds by stage.
        reached: Its hypervolume.
        curve: Seconds and hypervolume of ``retrain-tpe`` so far, after each training.
    """

    stages: dict[str, float]
    reached: float
    curve: list[tuple[float, float]]

    @property
    def there(self) -> float | None:
        """The seconds after which ``retrain-tpe`` was as far, or None."""
        return next((seconds for seconds, found in self.curve if found >= self.reached), None)

    def times(self, *stages: str) -> str:
        """How many times the seconds of these stages that took, or would take at least."""
        there = self.curve[-1][0] if self.there is None else self.there
        more = "more than " if self.there is None else ""
        return f"{more}{there / sum(self.stages[stage] for stage in stages):.1f}"


def adass(task: Task, storage: str, picks: int, seed: int) -> tuple[dict[str, float], float]:
    """The seconds of each stage, and the hypervolume of AdaS&S's retrained picks."""
    search = Search.create(
        task, name="adass", storage=storage, budget=BUDGET, trials=300, retrain=picks, reference=False, seed=seed
    )
    result = search.run()
    full = result.full["params"]
    for point in sorted(result.points, key=lambda p: p.params):
        print(f"  adass {point.params / full:.3f} {point.auc_valid:.4f}")
    return search.history().seconds, dominated([(p.params / full, p.auc_valid) for p in result.points], SMALLEST)


def retrain_tpe(task: Task, storage: str, trainings: int, seed: int) -> list[tuple[float, float]]:
    """Seconds so far and hypervolume so far, after each training."""
    search = Search.create(
        task,
        name="tpe",
        storage=storage,
        strategy=RetrainTPE(),
        budget=BUDGET,
        trials=trainings,
        retrain=0,
        reference=False,
        seed=seed,
    )
    search.run(["search"])
    full = search.context.budget.full_params
    curve: list[tuple[float, float]] = []
    points: list[tuple[float, float]] = []
    seconds = 0.0
    for trial in search.record.studies.search.get_trials(deepcopy=False):
        if SECONDS not in trial.user_attrs:  # over budget, and never trained
            continue
        seconds += trial.user_attrs[SECONDS]
        if trial.values is not None:
            points.append((trial.values[1] / full, trial.values[0]))
            print(f"  tpe {points[-1][0]:.3f} {points[-1][1]:.4f} {seconds:.1f}")
        curve.append((seconds, dominated(points, SMALLEST)))
    return curve


def table(runs: dict[int, Run]) -> str:
    """What they came to, in Markdown."""
    lines = [
        "| seed | AdaS&S: seconds of computing (fit, search, retrain) | hypervolume "
        "| retrain-tpe: seconds, hypervolume after a quarter, half and all of its trainings "
        "| as far after, in s | times AdaS&S's seconds | times fit and search |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, run in runs.items():
        at = [run.curve[max(1, round(share * len(run.curve))) - 1] for share in (0.25, 0.5, 1.0)]
        lines.append(
            f"| {seed} | {sum(run.stages.values()):.0f} ({', '.join(f'{s:.0f}' for s in run.stages.values())}) "
            f"| {run.reached:.4f} | {'; '.join(f'{seconds:.0f}, {found:.4f}' for seconds, found in at)} "
            f"| {'never' if run.there is None else f'{run.there:.0f}'} "
            f"| {run.times(*run.stages)} | {run.times('fit', 'search')} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wide", action="store_true", help="26 fields of 20,000 values, not the demo's ten of 4,000")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0 on")
    parser.add_argument("--trainings", type=int, default=80)
    parser.add_argument("--picks", type=int, default=8)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    fields = wide_fields(20_000) if given.wide else DEMO_FIELDS
    runs: dict[int, Run] = {}
    for seed in range(given.seeds):
        task = demo_task(planted(fields, rows=(given.rows, 40_000, 40_000), seed=seed))
        with tempfile.TemporaryDirectory() as folder:
            storage = f"sqlite:///{Path(folder) / 'aes.db'}"
            stages, reached = adass(task, storage, given.picks, seed)
            print(f"adass: hypervolume {reached:.4f} after {sum(stages.values()):.0f} s: {stages}", flush=True)
            runs[seed] = Run(stages, reached, retrain_tpe(task, storage, given.trainings, seed))
        print(table(runs), flush=True)
    if given.write:
        title = f"Compute to the same hypervolume, {len(fields)} planted fields, {given.rows:,} training rows"
        write_section(title, f"{given.picks} picks retrained; {given.trainings} trainings.\n\n{table(runs)}")


if __name__ == "__main__":
    main()
