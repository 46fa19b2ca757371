"""Compute until the same hypervolume: AdaS&S against ``retrain-tpe``, whose trials are trainings from scratch.

``python -m studies.bench.same_front [--wide] [--trainings 80] [--rows 120000] [--write]``

Both fronts are of validation AUC after training from scratch, with one seed; seconds are of computing. AdaS&S's include its
fit, its search and the trainings of its picks. The box is that of ``optuna-aes compare``, from 10 % of the full size on:
AdaS&S is asked for budgets down to 7.5 %, and TPE for any, so that below nobody is compared with what was not asked for.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
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


def adass(task: Task, storage: str, picks: int) -> tuple[float, dict[str, float]]:
    """Hypervolume of AdaS&S's retrained picks, and the seconds of each stage."""
    search = Search.create(
        task, name="adass", storage=storage, budget=BUDGET, trials=300, retrain=picks, reference=False
    )
    result = search.run()
    full = result.full["params"]
    for point in sorted(result.points, key=lambda p: p.params):
        print(f"  adass {point.params / full:.3f} {point.auc_valid:.4f}")
    return dominated([(p.params / full, p.auc_valid) for p in result.points], SMALLEST), search.history().seconds


def retrain_tpe(task: Task, storage: str, trainings: int) -> list[tuple[float, float]]:
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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wide", action="store_true", help="26 fields of 20,000 values, not the demo's ten of 4,000")
    parser.add_argument("--trainings", type=int, default=80)
    parser.add_argument("--picks", type=int, default=8)
    parser.add_argument("--rows", type=int, default=120_000)
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    fields = wide_fields(20_000) if given.wide else DEMO_FIELDS
    task = demo_task(planted(fields, rows=(given.rows, 40_000, 40_000)))
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder) / 'aes.db'}"
        reached, stages = adass(task, storage, given.picks)
        ours = sum(stages.values())
        print(f"adass: hypervolume {reached:.4f} after {ours:.0f} s: {stages}", flush=True)
        curve = retrain_tpe(task, storage, given.trainings)
    lines = ["| | seconds of computing | hypervolume |", "|---|---|---|"]
    lines.append(f"| AdaS&S, {given.picks} picks retrained | {ours:.0f} | {reached:.4f} |")
    for share in (0.25, 0.5, 1.0):
        at = max(1, round(share * len(curve))) - 1
        lines.append(f"| retrain-tpe, {at + 1} trainings | {curve[at][0]:.0f} | {curve[at][1]:.4f} |")
    there = next((seconds for seconds, found in curve if found >= reached), None)
    search = stages["fit"] + stages["search"]
    if there is None:
        said = f"retrain-tpe did not reach it: more than {curve[-1][0] / ours:.1f} times the compute"
        said += f" ({curve[-1][0] / search:.1f} times that of fit and search)"
    else:
        said = f"retrain-tpe reaches it after {there:.0f} s: {there / ours:.1f} times the compute"
        said += f" ({there / search:.1f} times that of fit and search)"
    text = "\n".join(
        [*lines, "", f"{said}. Of AdaS&S's seconds " + ", ".join(f"{k} {v:.0f}" for k, v in stages.items())]
    )
    print(text)
    if given.write:
        title = f"Compute to the same hypervolume, {len(fields)} planted fields, {given.rows:,} training rows"
        write_section(title, text + ".")


if __name__ == "__main__":
    main()
