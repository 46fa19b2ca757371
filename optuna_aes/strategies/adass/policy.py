"""Search policies over embedding sizes: what they have in common, in numpy, with no study in sight.

A policy is a function of the finished trials: it folds them group by group, in the order of trial numbers, whatever order
they arrived in. Group g holds the trials g·G … g·G + G − 1 and belongs to budget level g mod L, so several policies, one
per level, share one supernet and together trace a front.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from optuna_aes.budget import check_levels
from optuna_aes.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PENALTIES = ("hinge", "abs", "compete")
ESTIMATORS = ("critic", "group", "ema", "random")


@dataclass(frozen=True)
class PolicyOptions:
    """How sizes are searched.

    Args:
        estimator: ``"critic"``: soft policy improvement under an additive critic fitted to all finished trials;
            ``"group"`` and ``"ema"``: REINFORCE whose baseline is the group's mean or a running mean; ``"random"``: none,
            for comparison.
        penalty: Form of the resource competition penalty: ``"hinge"`` (only excess counts; proposals have none, so it is
            for trials that others gave), ``"abs"`` (unused budget counts too) or ``"compete"`` (each block pays for what
            it takes beyond its expected share, while the policy's expected memory is over budget; for REINFORCE).
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
        check_levels(self.levels)
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

    def moves(self, level: int, rng: np.random.Generator) -> Ints:
        """Choices inside the level's budget that are worth a look whatever the probabilities say.

        Returns:
            int64 of shape ``(n, blocks)``, the most promising first; none from a policy that has no such opinion.
        """


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
    that it only repeats itself, it is flattened step by step; what it still does not find is looked up, so that nothing is
    repeated while there is something new. Up to half of the group are the policy's own moves.

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
    chosen: dict[bytes, Ints] = {}

    def drawn() -> Iterator[Ints]:
        for flat in (0.0, 0.05, 0.15, 0.4, 0.8):
            probabilities = (1 - flat) * base + flat / base.shape[1]
            yield from fitting(draw(probabilities, 64 * count, rng), problem, level, count, rng)

    def take(rows: Iterable[Ints], most: int) -> None:
        new = (row for row in rows if row.tobytes() not in seen and row.tobytes() not in chosen)
        chosen.update((row.tobytes(), row) for row in itertools.islice(new, most - len(chosen)))

    take(policy.moves(level, rng), count // 2)
    take(itertools.chain(drawn(), _feasible(problem, level, rng)), count)
    # Where the space is exhausted, what is left of the group repeats the policy's own draws.
    again = itertools.cycle(drawn())
    return np.stack([*chosen.values(), *itertools.islice(again, count - len(chosen))])


def draw(probabilities: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Independent draws per block, int64 of shape ``(count, blocks)``."""
    edges = probabilities.cumsum(1)[None, :, :-1]
    return np.asarray((rng.random((count, len(probabilities), 1)) > edges).sum(2), dtype=np.int64)


def fitting(choices: Ints, problem: Problem, level: int, count: int, rng: np.random.Generator) -> Ints:
    """The choices that fit the level's budget; if fewer than ``count`` do, some of the others, repaired, after them."""
    fits = problem.used(choices) <= problem.budgets[level]
    if fits.sum() >= count:
        return choices[fits]
    return np.concatenate([choices[fits], repair(choices[~fits][: 4 * count], problem, level, rng)])


def repair(choices: Ints, problem: Problem, level: int, rng: np.random.Generator) -> Ints:
    """The choices with random blocks stepped down until they fit the level's budget."""
    choices = choices.copy()
    over = np.arange(len(choices))
    while len(over := over[problem.used(choices[over]) > problem.budgets[level]]):
        # A block is stepped down with probability in proportion to what it holds, so large tables yield first.
        held = problem.params[np.arange(len(problem.params)), choices[over]]
        weight = np.where(choices[over] > 0, held, 0).cumsum(1)
        block = (rng.random((len(over), 1)) * weight[:, -1:] >= weight).sum(1)
        choices[over, block] -= 1
    return choices


def _feasible(problem: Problem, level: int, rng: np.random.Generator) -> Iterator[Ints]:
    """All choices that fit the level's budget, in a random order of every block's candidates; each comes at little cost."""
    blocks, candidates = problem.params.shape
    order = rng.permuted(np.tile(np.arange(candidates), (blocks, 1)), axis=1)
    least = np.append(problem.params.min(1)[::-1].cumsum()[::-1], 0)
    choice = np.zeros(blocks, dtype=np.int64)
    # Depth first, without recursion, as a space may have more blocks than Python has stack: what is left to try, by block.
    branches = [(problem.budgets[level], iter(order[0]))]
    while branches:
        left, untried = branches[-1]
        block = len(branches) - 1
        k = next(untried, None)
        if k is None:
            branches.pop()
            continue
        rest = left - int(problem.params[block, k])
        if rest < least[block + 1]:
            continue
        choice[block] = k
        if block + 1 < blocks:
            branches.append((rest, iter(order[block + 1])))
        else:
            yield choice.copy()


class UniformPolicy:
    """Learns nothing: every candidate of every block is as likely, before what does not fit is stepped down."""

    def __init__(self, problem: Problem) -> None:
        self.shape = problem.params.shape

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        """See :class:`Policy`."""

    def probabilities(self, level: int) -> Floats:
        """See :class:`Policy`."""
        return np.full(self.shape, 1.0 / self.shape[1])

    def moves(self, level: int, rng: np.random.Generator) -> Ints:
        """See :class:`Policy`: none."""
        return np.zeros((0, self.shape[0]), dtype=np.int64)


def make_policy(problem: Problem, options: PolicyOptions) -> Policy:
    """The policy that the options name."""
    from optuna_aes.strategies.adass.critic import CriticPolicy
    from optuna_aes.strategies.adass.reinforce import ReinforcePolicy

    if options.estimator == "random":
        return UniformPolicy(problem)
    return CriticPolicy(problem, options) if options.estimator == "critic" else ReinforcePolicy(problem, options)
