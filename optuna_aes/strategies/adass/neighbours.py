"""Choices to look at besides the policy's draws: uniform sizes first, later the neighbours of the best scored ones.

Ours, not AdaS&S's. A critic that adds up blocks cannot see that two of them stand in for each other; scores can. So the
last part of a search moves one block of a well-scored choice, or trades memory between two, in the order in which the
critic expects most of it.
"""

from __future__ import annotations

import numpy as np

from optuna_aes.strategies.adass.policy import Floats, Ints, Problem


def uniform(problem: Problem, level: int) -> Ints:
    """One size for all blocks, where that fits the level's budget; so no search ends below what needs no search.

    Args:
        problem: Space and budgets.
        level: Which budget.

    Returns:
        int64 of shape ``(n, blocks)``: the largest uniform size, with one step more for as many blocks as the budget has
        room for, the smallest tables first; then the uniform sizes, from the largest down.
    """
    blocks, candidates = problem.params.shape
    budget = problem.budgets[level]
    choices = np.repeat(np.arange(candidates)[::-1, None], blocks, axis=1)
    choices = choices[problem.used(choices) <= budget]
    if not len(choices) or choices[0, 0] == candidates - 1:
        return choices
    at = choices[0, 0]
    extra = problem.params[:, at + 1] - problem.params[:, at]
    order = np.argsort(extra, kind="stable")
    filled = choices[0].copy()
    filled[order[extra[order].cumsum() <= budget - problem.used(choices[:1])[0]]] += 1
    return np.concatenate([filled[None], choices])


class Elites:
    """The best scored choices inside each level's budget.

    Args:
        problem: Space and budgets.
        keep: How many per level.
    """

    # Single moves that take part in exchanges, on either side: bounds what a space of many blocks costs.
    MOVES = 64

    def __init__(self, problem: Problem, *, keep: int = 4) -> None:
        self.problem = problem
        self.keep = keep
        levels, blocks = len(problem.budgets), len(problem.params)
        self.choices: list[Ints] = [np.zeros((0, blocks), dtype=np.int64)] * levels
        self.scores: list[Floats] = [np.zeros(0)] * levels

    def fold(self, choices: Ints, scores: Floats) -> None:
        """Takes in scored choices, shapes ``(n, blocks)`` and ``(n,)``; of equal scores the earlier ones stay."""
        used = self.problem.used(choices)
        for level, budget in enumerate(self.problem.budgets):
            fits = used <= budget
            every = np.concatenate([self.choices[level], choices[fits]])
            score = np.concatenate([self.scores[level], scores[fits]])
            best = np.argsort(-score, kind="stable")[: self.keep]
            self.choices[level], self.scores[level] = every[best], score[best]

    def moves(self, values: Floats, level: int) -> Ints:
        """Choices one move or one exchange away from the elites and inside the budget, the most promising first.

        Args:
            values: The critic's value of every candidate, shape ``(blocks, candidates)``, in the unit of the scores.
            level: Which budget.

        Returns:
            int64 of shape ``(n, blocks)``; those of different elites may be equal.
        """
        found = [self._around(choice, values, level) for choice in self.choices[level]]
        if not found:
            return np.zeros((0, len(values)), dtype=np.int64)
        gains = np.concatenate([score + gain for score, (_, gain) in zip(self.scores[level], found, strict=True)])
        return np.concatenate([choices for choices, _ in found])[np.argsort(-gains, kind="stable")]

    def _around(self, choice: Ints, values: Floats, level: int) -> tuple[Ints, Floats]:
        """The neighbours of one choice inside the budget, and what the critic says each would gain."""
        blocks, candidates = values.shape
        at = np.arange(blocks)
        gain = (values - values[at, choice][:, None]).ravel()
        extra = (self.problem.params - self.problem.params[at, choice][:, None]).ravel()
        block, to = np.divmod(np.arange(blocks * candidates), candidates)
        moved = to != choice[block]
        # Exchanges: what gains most, paid for by what loses least.
        gains, frees = (np.flatnonzero(moved & side) for side in (extra > 0, extra < 0))
        up = gains[np.argsort(-gain[gains], kind="stable")][: self.MOVES]
        down = frees[np.argsort(-gain[frees], kind="stable")][: self.MOVES]
        first, second = (side.ravel() for side in np.meshgrid(up, down, indexing="ij"))
        other = block[first] != block[second]
        single = np.flatnonzero(moved)
        first = np.concatenate([single, first[other]])
        second = np.concatenate([single, second[other]])
        total = gain[first] + np.where(first == second, 0.0, gain[second])
        memory = extra[first] + np.where(first == second, 0, extra[second])
        fits = memory <= self.problem.budgets[level] - self.problem.used(choice[None])[0]
        first, second, total = first[fits], second[fits], total[fits]
        result = np.repeat(choice[None], len(first), axis=0)
        rows = np.arange(len(first))
        result[rows, block[first]] = to[first]
        result[rows, block[second]] = to[second]
        return result, total
