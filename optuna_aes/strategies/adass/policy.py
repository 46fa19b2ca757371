"""Search policies over embedding sizes: what they have in common, in numpy, with no study in sight.

A policy is a function of the finished trials: it folds them group by group, in the order of trial numbers, whatever order
they arrived in. Group g holds the trials g·G … g·G + G − 1 and belongs to budget level g mod L, so several policies, one
per level, share one supernet and together trace a front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PENALTIES = ("hinge", "abs", "compete")
ESTIMATORS = ("critic", "group", "ema")


@dataclass(frozen=True)
class PolicyOptions:
    """How sizes are searched.

    Args:
        estimator: ``"critic"``: soft policy improvement under an additive critic fitted to all finished trials;
            ``"group"`` and ``"ema"``: REINFORCE whose baseline is the group's mean or a running mean.
        penalty: Form of the resource competition penalty: ``"hinge"`` (only excess counts), ``"abs"`` (unused budget
            counts too) or ``"compete"`` (each field pays for what it takes beyond its expected share).
        levels: Budget levels as shares of the budget, each with a policy of its own.
        group: Trials of a group; they are scored together, and a policy changes only between groups.
        horizon: Trials after which exploration has been annealed away; a search sets it to its number of trials.
        entropy: Exploration at the start, in standard deviations of the scores.
        lr: Adam's step on the logits, for REINFORCE.
        price: Penalty weight λ at the start, in standard deviations of the scores, for REINFORCE.
        price_lr: Step of the dual ascent on λ, for REINFORCE.
    """

    estimator: str = "critic"
    penalty: str = "hinge"
    levels: tuple[float, ...] = (1.0, 0.7, 0.5, 0.3)
    group: int = 12
    horizon: int = 300
    entropy: float = 0.15
    lr: float = 0.25
    price: float = 1.0
    price_lr: float = 0.5

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise InputError(f"estimator={self.estimator!r} is not known: give one of {', '.join(ESTIMATORS)}")
        if self.penalty not in PENALTIES:
            raise InputError(f"penalty={self.penalty!r} is not known: give one of {', '.join(PENALTIES)}")
        if not self.levels or not all(0 < share <= 1 for share in self.levels):
            raise InputError(f"levels={self.levels} must be one or more shares of the budget in (0, 1]")
        for name in ("group", "horizon"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least 1")
        for name in ("entropy", "lr", "price", "price_lr"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give 0 or more")

    def level_of(self, number: int) -> int:
        """The budget level of a trial, by its number."""
        return number // self.group % len(self.levels)


@dataclass(frozen=True)
class Problem:
    """What a policy needs to know of space and budget.

    Args:
        params: Parameters of every block at every candidate, int64 of shape ``(blocks, candidates)``.
        budgets: The budget of every level, in parameters.
    """

    params: Ints
    budgets: tuple[int, ...]

    def used(self, choices: Ints) -> Ints:
        """Parameters of choices, shape ``(n,)`` for positions of shape ``(n, blocks)``."""
        return np.asarray(self.params[np.arange(len(self.params)), choices].sum(-1))


class Policy(Protocol):
    """A policy per budget level, changed by folding groups of finished trials."""

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        """Folds one group.

        Args:
            choices: Positions among the candidates, shape ``(trials, blocks)``.
            values: Scores, higher is better, shape ``(trials,)``.
            level: The group's budget level.
        """

    def probabilities(self, level: int) -> Floats:
        """Probability of every candidate of every block, shape ``(blocks, candidates)``."""


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def propose(
    policy: Policy, problem: Problem, *, level: int, count: int, seen: set[bytes], rng: np.random.Generator
) -> Ints:
    """Draws choices that fit the level's budget and were not tried before.

    Drawing until the budget holds is drawing from the policy given that it holds; with a baseline that is centred on the
    group, the policy gradient of that conditional distribution has no further term. Where the policy has become so sharp
    that it only repeats itself, it is flattened step by step.

    Args:
        policy: The policy.
        problem: Space and budgets.
        level: Which budget.
        count: How many choices.
        seen: ``bytes`` of the choices already tried, as int64 rows; those proposed are not added.
        rng: Source of the draws.

    Returns:
        int64 of shape ``(count, blocks)``. When the space holds fewer new choices than asked, some repeat.
    """
    base = policy.probabilities(level)
    chosen: list[Ints] = []
    taken = set(seen)
    for flat in (0.0, 0.05, 0.15, 0.4, 0.8):
        probabilities = (1 - flat) * base + flat / base.shape[1]
        drawn = repair(draw(probabilities, 64 * count, rng), problem, level, rng)
        for row in drawn:
            key = row.tobytes()
            if key not in taken:
                taken.add(key)
                chosen.append(row)
                if len(chosen) == count:
                    return np.stack(chosen)
    while len(chosen) < count:  # the space is exhausted
        chosen.append(drawn[len(chosen) % len(drawn)])
    return np.stack(chosen)


def draw(probabilities: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Independent draws per block, int64 of shape ``(count, blocks)``."""
    edges = probabilities.cumsum(1)[None, :, :-1]
    return np.asarray((rng.random((count, len(probabilities), 1)) > edges).sum(2), dtype=np.int64)


def repair(choices: Ints, problem: Problem, level: int, rng: np.random.Generator) -> Ints:
    """The choices that fit the level's budget; if none does, all of them with random blocks stepped down until they fit."""
    budget = problem.budgets[level]
    fits = problem.used(choices) <= budget
    if fits.any():
        return choices[fits]
    choices = choices.copy()
    while (over := problem.used(choices) > budget).any():
        # A block is stepped down with probability in proportion to what it holds, so large tables yield first.
        held = problem.params[np.arange(len(problem.params)), choices[over]] * (choices[over] > 0)
        weight = held + (choices[over] > 0)
        edges = (weight / weight.sum(1, keepdims=True)).cumsum(1)
        block = np.minimum((rng.random((len(edges), 1)) > edges).sum(1), choices.shape[1] - 1)
        rows = np.flatnonzero(over)
        choices[rows, block] = np.maximum(choices[rows, block] - 1, 0)
    return choices


def make_policy(problem: Problem, options: PolicyOptions) -> Policy:
    """The policy that the options name."""
    from optuna_aes.strategies.adass.critic import CriticPolicy
    from optuna_aes.strategies.adass.reinforce import ReinforcePolicy

    kinds: dict[str, Any] = {"critic": CriticPolicy, "group": ReinforcePolicy, "ema": ReinforcePolicy}
    policy: Policy = kinds[options.estimator](problem, options)
    return policy
