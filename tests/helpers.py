"""Small datasets, models and searches for the tests, as plain functions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from optuna_aes.data.dataset import PAD, Dataset, FieldSpec, Schema, Split
from optuna_aes.strategies.adass.policy import Floats, Ints, Policy, PolicyOptions, Problem, propose
from optuna_aes.strategies.adass.reinforce import ReinforcePolicy

PLAIN = Schema(
    (FieldSpec("user", "categorical", 30), FieldSpec("item", "categorical", 50), FieldSpec("hour", "numeric", 8))
)
WITH_BAG = Schema(
    (
        FieldSpec("user", "categorical", 30),
        FieldSpec("tags", "multi", 12, width=3),
        FieldSpec("item", "categorical", 50),
        FieldSpec("shop", "multi", 7, width=2),
    )
)


def fields_for(backbone: str, schema: Schema) -> Schema:
    """As many of the fields as the backbone takes."""
    return replace(schema, fields=schema.fields[:2]) if backbone == "neumf" else schema


def random_ids(schema: Schema, rows: int, *, seed: int = 0) -> np.ndarray:
    """int32 ids of all values, the out-of-vocabulary one included; bags of every length, from empty to full."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in schema.fields:
        block = rng.integers(0, field.cardinality, (rows, field.width))
        if field.kind == "multi":
            length = rng.integers(0, field.width + 1, rows)
            block[np.arange(field.width) >= length[:, None]] = PAD
        columns.append(block)
    return np.concatenate(columns, axis=1).astype(np.int32)


def tiny_split(schema: Schema = PLAIN, rows: int = 200, *, seed: int = 0) -> Split:
    """Rows whose label depends on the first field's value and, less, on the last column's."""
    rng = np.random.default_rng(seed + 10_000)
    ids = random_ids(schema, rows, seed=seed)
    logit = 2.0 * np.sin(ids[:, 0] * 1.7) + np.cos(ids[:, -1] * 2.3)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    labels[:2] = (0, 1)  # both classes, however few the rows
    return Split(ids, labels)


def tiny_dataset(schema: Schema = PLAIN, rows: tuple[int, int, int] = (300, 120, 120), *, seed: int = 0) -> Dataset:
    """Three such splits."""
    names = ("train", "valid", "test")
    splits = {n: tiny_split(schema, r, seed=3 * seed + i) for i, (n, r) in enumerate(zip(names, rows, strict=True))}
    return Dataset.from_arrays(schema, splits)


def ids_of(split: Split, rows: int | None = None) -> Tensor:
    """The first rows' ids as a tensor of its own."""
    return torch.from_numpy(np.array(split.ids[:rows]))


@dataclass(frozen=True)
class SizeGame:
    """A search whose answer is known: additive gains of size, and slight interactions between neighbours.

    Args:
        problem: Tables of 20 to 3000 rows at sizes 0, 1, 2, 4, 8.
        everything: All choices, int64 of shape ``(5 ** blocks, blocks)``.
        values: Their scores, about .75 to .82.
    """

    problem: Problem
    everything: Ints
    values: Floats

    def score(self, choices: Ints) -> Floats:
        return self.values[choices @ 5 ** np.arange(choices.shape[1])[::-1]]

    def best(self, level: int) -> float:
        return float(self.values[self.problem.used(self.everything) <= self.problem.budgets[level]].max())


def size_game(
    seed: int, *, blocks: int = 6, interaction: float = 0.3, levels: tuple[float, ...] = (1.0,), fraction: float = 0.3
) -> SizeGame:
    rng = np.random.default_rng(seed)
    sizes = np.array([0, 1, 2, 4, 8])
    params = rng.integers(20, 3000, blocks)[:, None] * sizes
    gain = rng.exponential(1.0, (blocks, 1)) * (1 - np.exp(-sizes / rng.uniform(0.5, 4.0, (blocks, 1))))
    mixing = rng.normal(0.0, interaction / (2 * blocks), (blocks, blocks))
    everything = np.array(list(itertools.product(range(5), repeat=blocks)), dtype=np.int64)
    gains = gain[np.arange(blocks), everything]
    values = 0.75 + 0.01 * (gains.sum(1) + np.einsum("ni,ij,nj->n", gains, mixing, gains))
    full = int(params[:, -1].sum())
    return SizeGame(Problem(params, tuple(int(full * fraction * share) for share in levels)), everything, values)


def play(game: SizeGame, policy: Policy | None, options: PolicyOptions, trials: int, *, seed: int = 0) -> list[float]:
    """The best score found inside each level's budget; without a policy, by random draws inside the budget."""
    drawn_from = policy or ReinforcePolicy(game.problem, options)
    best, seen = [-np.inf] * len(options.levels), set[bytes]()
    for group in range(trials // options.group):
        level = options.level_of(group * options.group)
        rng = np.random.default_rng((seed, group))
        choices = propose(drawn_from, game.problem, level=level, count=options.group, seen=seen, rng=rng)
        values = game.score(choices)
        seen |= {row.tobytes() for row in choices}
        if policy is not None:
            policy.fold(choices, values, level)
        for at, budget in enumerate(game.problem.budgets):
            best[at] = max([best[at], *values[game.problem.used(choices) <= budget]])
    return best
