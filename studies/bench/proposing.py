"""Proposals per second of AdaS&S's sampler, and what it takes to look at all scores, beside many finished trials.

``python -m studies.bench.proposing [--trials 20000] [--write]``

26 fields of six candidates, groups of 12, a SQLite file; CPU seconds of one process. Each round proposes a group, records it,
and reads all scores, as a search does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from optuna_aes import AdaSSSampler, EmbeddingSpace, MemoryBudget
from optuna_aes.search.records import scores
from optuna_aes.storage import add_trials, open_storage
from optuna_aes.strategies.adass.policy import Ints, PolicyOptions, Problem, draw, fitting
from studies.bench.results import write_section
from studies.bench.settings import wide_fields

ROUNDS = 15


def record(study: optuna.Study, space: EmbeddingSpace, choices: Ints, rng: np.random.Generator) -> None:
    """Finished trials whose score has a part for every block and size, and chance."""
    worth = np.log1p(np.arange(len(space.candidates))) * np.linspace(0.0, 0.01, len(space))[:, None]
    aucs = 0.6 + worth[np.arange(len(space)), choices].sum(1) + rng.normal(0, 0.001, len(choices))
    trials = [
        optuna.create_trial(
            state=TrialState.COMPLETE,
            values=[float(auc), float(params)],
            params=space.to_params(space.from_indices(choice)),
            distributions=dict(space.distributions()),
        )
        for choice, auc, params in zip(choices, aucs, space.params_of(choices), strict=True)
    ]
    add_trials(study, trials)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = EmbeddingSpace({f.name: f.values for f in wide_fields(1_000_000)}, candidates=(0, 1, 2, 4, 8, 16))
    budget, rng = MemoryBudget(space, fraction=0.25), np.random.default_rng(0)
    options = PolicyOptions(horizon=given.trials)
    problem = Problem(params=space.table_params, budgets=(budget.params,))
    first = given.trials // options.group * options.group
    drawn = draw(np.full((len(space), len(space.candidates)), 1 / len(space.candidates)), first, rng)
    choices = fitting(drawn, problem, 0, first, rng)[:first]
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(f"sqlite:///{Path(folder) / 'aes.db'}")
        study = optuna.create_study(storage=storage, study_name="many", directions=["maximize", "minimize"])
        for block in np.array_split(choices, max(1, len(choices) // 1000)):
            record(study, space, block, rng)
        sampler = AdaSSSampler(space, budget, options=options, seed=0)
        started = time.process_time()
        sampler.propose(study, first)
        folding = time.process_time() - started
        proposing, reading = [], []
        for number in range(first, first + ROUNDS * options.group, options.group):
            started = time.process_time()
            proposals = sampler.propose(study, number)
            proposing.append(time.process_time() - started)
            record(study, space, np.array([space.to_indices(sizes) for sizes in proposals]), rng)
            started = time.process_time()
            scores(study, budget)
            reading.append(time.process_time() - started)
        storage.engine.dispose()
    rates = options.group / np.array(proposing)
    lines = [
        "| | median | range |",
        "|---|---|---|",
        f"| proposals per second | {np.median(rates):.0f} | {rates.min():.0f}–{rates.max():.0f} |",
        f"| looking at all scores, ms | {1e3 * np.median(reading):.1f} | {1e3 * min(reading):.1f}–{1e3 * max(reading):.1f} |",
        f"| folding all trials after a restart, s | {folding:.2f} | |",
    ]
    print("\n".join(lines))
    if given.write:
        write_section(f"Proposing beside {first:,} finished trials, 26 fields", "\n".join(lines))


if __name__ == "__main__":
    main()
