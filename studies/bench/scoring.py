"""Seconds per architecture: groups scored together against a masked forward pass of the supernet, and against the limit.

``python -m studies.bench.scoring [--rounds 7] [--backbones mlp deepfm] [--write]``

Planted data of 26 fields, 50,000 validation rows, a tower of 3×128, sizes inside a budget of 25 %, groups of 16, one thread;
CPU seconds, so that other work on the machine counts for little. All contestants run in turn in every round.

The limit are the hidden layers above the first and nothing else: no two architectures can share those.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from optuna_aes import AdaSS, MemoryBudget, ModelOptions, Task, TrainOptions
from optuna_aes.models.backbones.tower import TowerBackbone
from optuna_aes.models.evaluation import auc
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.strategies.adass.policy import Ints, PolicyOptions, Problem, make_policy, propose
from studies.bench.results import write_section
from studies.bench.settings import wide_task

GROUP, ROWS, TRIALS = 16, 50_000, 320
EVAL_BLOCK = TrainOptions().eval_batch_size


@dataclass(frozen=True)
class Fitted:
    """A trained supernet and what scores its subnets."""

    task: Task
    supernet: Supernet
    scorer: SubnetScorer

    @classmethod
    def of(cls, backbone: str, rows: int) -> Fitted:
        """Trains one for two epochs."""
        model = ModelOptions(backbone=backbone, hidden=(128, 128, 128), init_std=0.1)
        train = TrainOptions(epochs=2, batch_size=2048, lr=5e-3, l2=1e-3, patience=0)
        task = wide_task(100_000, (rows, ROWS, 1000), model=model, train=train)
        supernet = AdaSS().supernet(task.dataset.schema, task.candidates, model=model)
        AdaSS().trainer(supernet, task.dataset, options=train).run()
        scorer = AdaSS().scorer(supernet, task.dataset)
        scorer.keep_embeddings()
        return cls(task, supernet.eval(), scorer)

    def masked(self, path: Ints, block: int) -> float:
        """The AUC by a forward pass of the whole supernet that masks what the path leaves out."""
        self.supernet.embedding.set_paths(path[np.newaxis])
        with torch.no_grad():
            logits = [self.supernet(ids) for ids in self.supernet.pieces(self.scorer.ids, block)]
        return auc(torch.cat(logits).numpy(), self.scorer.labels)

    def above_the_first(self) -> None:
        """What is to be done for one architecture once its first layer is there."""
        backbone = self.supernet.backbone
        assert isinstance(backbone, TowerBackbone)
        units = backbone.tower.first.out_features
        with torch.no_grad():
            for ids in self.supernet.pieces(self.scorer.ids):
                backbone.tower.above(torch.ones(len(ids), units))


def groups_of(fitted: Fitted, *, trials: int = TRIALS) -> tuple[Ints, Ints]:
    """The first and the last group that a search of the supernet proposes."""
    space = fitted.task.space
    options = PolicyOptions(group=GROUP, horizon=trials, levels=(1.0,))
    problem = Problem(params=space.table_params, budgets=(MemoryBudget(space, fraction=0.25).params,))
    policy, seen = make_policy(problem, options), set[bytes]()
    groups = []
    for number in range(trials // GROUP):
        rng = np.random.default_rng(number)
        group = propose(policy, problem, level=0, count=GROUP, seen=seen, rng=rng)
        seen |= {row.tobytes() for row in group}
        policy.fold(group, fitted.scorer(group), 0)
        groups.append(group)
    return groups[0], groups[-1]


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(fitted: Fitted, rounds: int) -> list[str]:
    """Rows of the table of one backbone."""
    first, last = groups_of(fitted)
    sizes = np.array(fitted.task.candidates)
    contestants: dict[str, tuple[Callable[[], object], int]] = {
        f"masked pass, blocks of {EVAL_BLOCK:,} rows": (lambda: fitted.masked(last[0], EVAL_BLOCK), 1),
        "masked pass, blocks of 1,024 rows": (lambda: fitted.masked(last[0], 1024), 1),
        f"group, first of a search ({sizes[first].sum(1).mean():.0f} columns)": (lambda: fitted.scorer(first), GROUP),
        f"group, last of a search ({sizes[last].sum(1).mean():.0f} columns)": (lambda: fitted.scorer(last), GROUP),
        "limit": (fitted.above_the_first, 1),
    }
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):  # the first warms up
        for name, (work, count) in contestants.items():
            taken[name].append(seconds(work) / count)
    medians = {name: float(np.median(times[1:])) for name, times in taken.items()}
    masked, small, *_, limit = medians.values()
    backbone = fitted.task.model.backbone
    lines = [
        f"| {backbone} | {name} | {1e3 * medians[name]:.1f} | {1e3 * min(times[1:]):.1f}–{1e3 * max(times[1:]):.1f} "
        f"| {masked / medians[name]:.2f} | {small / medians[name]:.2f} | {medians[name] / limit:.2f} |"
        for name, times in taken.items()
    ]
    paths = np.concatenate([first[:4], last[:4]])
    expected = [fitted.masked(path, EVAL_BLOCK) for path in paths]
    together = np.concatenate([fitted.scorer(first)[:4], fitted.scorer(last)[:4]])
    lines.append(f"| {backbone} | largest difference of an AUC: {np.abs(together - expected).max():.1e} | | | | | |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=200_000, help="training rows of the supernet")
    parser.add_argument("--backbones", nargs="+", default=["mlp", "deepfm"])
    parser.add_argument("--write", action="store_true", help="put it into RESULTS.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    lines = [
        "| backbone | | ms per architecture | range | × masked pass | × the one of small blocks | of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for backbone in given.backbones:
        found = measure(Fitted.of(backbone, given.rows), given.rounds)
        print("\n".join(found), flush=True)
        lines += found
    if given.write:
        write_section(f"Scoring: 26 fields, {ROWS:,} rows, tower 3×128, 25 %, groups of {GROUP}", "\n".join(lines))


if __name__ == "__main__":
    main()
