"""Actor and critic for embedding sizes: an additive critic of the score, and the soft-greedy policy under a price of memory.

Reconstruction: AdaS&S's abstract says that reinforcement learning searches inside the supernet, and no more. Plain
REINFORCE (:mod:`optuna_aes.strategies.adass.reinforce`) uses a score once; a critic learns from all finished trials, of
all budget levels.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import ThreadpoolController

from optuna_aes.strategies.adass.neighbours import Elites, uniform
from optuna_aes.strategies.adass.policy import Floats, Ints, PolicyOptions, Problem, softmax

_RIDGES = np.logspace(-4, 3, 22)
_BLAS = ThreadpoolController()


class CriticPolicy:
    """Soft policy improvement under an additive critic and a budget.

    The critic is a ridge regression of the score on steps of size: feature (f, k) is 1 where block f has candidate k or a
    larger one, so neighbours share what is learnt. Each level weighs trials by how near their memory is to its budget,
    and the ridge is chosen by generalised cross-validation. Given the critic's value w[f, k], the policy that maximises
    E[value] + temperature · entropy with E[memory] at the budget is softmax((w − price · memory) / temperature); the price
    is found by bisection. That is what policy gradients with an entropy bonus and a Lagrange multiplier converge to for a
    critic of this form. Temperature falls linearly with the finished trials, and in its place grows pessimism: what counts in
    the end is a size's value less one standard error, so that a size that has not shown its worth is not taken.

    Args:
        problem: Space and budgets.
        options: How sizes are searched.
    """

    # Trials whose memory is a factor 2 from the level's budget weigh exp(-1/2).
    BANDWIDTH = 1.0
    # Part of the budget is left free in expectation, so that most draws fit.
    FILL = 0.92
    # Share of the horizon after which groups also look next to the best scored choices.
    LOCAL = 0.5

    def __init__(self, problem: Problem, options: PolicyOptions) -> None:
        self.problem = problem
        self.options = options
        self.blocks, self.candidates = problem.params.shape
        features = self.blocks * (self.candidates - 1)
        levels = len(problem.budgets)
        self.finished = 0
        self.begun = np.zeros(levels, dtype=bool)
        self.elites = Elites(problem)
        # The first score: what is summed is the difference to it, so that large scores lose no digits.
        self.origin = np.nan
        # Weighted sums of 1, x and y, their products, by level: all that the regression needs.
        self.moments = np.zeros((levels, features + 2, features + 2))

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        """See :class:`Policy`; a group serves the critics of all levels."""
        if not self.finished:
            self.origin = float(values[0])
        self.finished += len(values)
        self.begun[level] = True
        steps = (choices[:, :, None] >= np.arange(1, self.candidates)).reshape(len(choices), -1)
        columns = np.concatenate([np.ones((len(values), 1)), steps, (values - self.origin)[:, None]], axis=1)
        used = np.maximum(self.problem.used(choices), 1)
        for at, budget in enumerate(self.problem.budgets):
            distance = np.log2(used / budget) / self.BANDWIDTH
            weight = np.exp(-0.5 * distance**2) + 1e-3
            self.moments[at] += (columns * weight[:, None]).T @ columns
        self.elites.fold(choices, values)

    def probabilities(self, level: int) -> Floats:
        """See :class:`Policy`."""
        if self.finished < 2:
            # Uniform draws inside the budget teach more than those of most entropy whose expected memory is at the budget.
            return np.full((self.blocks, self.candidates), 1.0 / self.candidates)
        left = max(0.0, 1.0 - self.finished / self.options.horizon)
        temperature = max(0.002, self.options.entropy * left)
        value, error, scale = self._critic(level)
        return self._soft_greedy((value - (1.0 - left) * error) / scale, temperature, level)

    def moves(self, level: int, rng: np.random.Generator) -> Ints:
        """See :class:`Policy`.

        A level begins with uniform sizes. After a part of the search come neighbours of the best scored choices, in the
        order of the critic's doubtful opinion.
        """
        if not self.begun[level]:
            return uniform(self.problem, level)
        if self.finished < self.LOCAL * self.options.horizon:
            return np.zeros((0, self.blocks), dtype=np.int64)
        value, error, _ = self._critic(level)
        return self.elites.moves(value + 0.5 * error * rng.standard_normal(value.shape), level)

    def values(self, level: int) -> Floats:
        """Value of every candidate over that of the smallest, in standard deviations of the scores.

        Shape ``(blocks, candidates)``, and all 0 where all scores are equal. At least one group has been folded.
        """
        value, _, scale = self._critic(level)
        return value / scale

    def _critic(self, level: int) -> tuple[Floats, Floats, float]:
        """Values, their standard errors, and the standard deviation of the scores, which is their unit elsewhere.

        On one thread, whatever the machine has: for matrices of this size several are slower, up to twenty times where the
        cores are busy, and round differently.
        """
        with _BLAS.limit(limits=1, user_api="blas"):
            return self._regression(level)

    def _regression(self, level: int) -> tuple[Floats, Floats, float]:
        moments = self.moments[level]
        total = moments[0, 0]
        mean = moments[0] / total
        centred = moments / total - np.outer(mean, mean)
        gram, cross, variance = centred[1:-1, 1:-1], centred[1:-1, -1], max(float(centred[-1, -1]), 1e-18)
        eigen, vectors = np.linalg.eigh(gram)
        eigen = np.maximum(eigen, 0.0)
        rotated = vectors.T @ cross
        ridges = _RIDGES[:, None] / self.finished
        weights = rotated / (eigen + ridges)
        residual = variance - 2 * weights @ rotated + (weights**2) @ eigen
        freedom = np.minimum((eigen / (eigen + ridges)).sum(1) / self.finished, 0.99)
        best = int(np.argmin(np.maximum(residual, 1e-12 * variance) / (1 - freedom) ** 2))
        steps = (vectors @ weights[best]).reshape(self.blocks, self.candidates - 1)
        noise = max(float(residual[best]), 0.0) / (1 - freedom[best]) / max(total, 1.0)
        covariance = (vectors * (noise / (eigen + ridges[best]))) @ vectors.T
        return _cumulated(steps), _errors(covariance, self.blocks), variance**0.5

    def _soft_greedy(self, value: Floats, temperature: float, level: int) -> Floats:
        memory = self.problem.params / self.problem.budgets[level]

        def policy(price: float) -> Floats:
            return softmax((value - price * memory) / temperature)

        def excess(price: float) -> float:
            return float((policy(price) * memory).sum()) - self.FILL

        # "abs" also pays for memory that is left unused: its price may be negative.
        low = -1e6 if self.options.penalty == "abs" else 0.0
        if excess(low) <= 0:
            return policy(low)
        high = 1e-6
        while excess(high) > 0 and high < 1e6:
            high *= 4
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle) > 0 else (low, middle)
        return policy(high)


def _cumulated(steps: Floats) -> Floats:
    """Values of candidates from those of the steps between them: shape ``(blocks, steps + 1)``."""
    return np.concatenate([np.zeros((len(steps), 1)), steps.cumsum(1)], axis=1)


def _errors(covariance: Floats, blocks: int) -> Floats:
    """Standard errors of cumulated steps from the steps' covariance: shape ``(blocks, steps + 1)``."""
    steps = len(covariance) // blocks
    at = np.arange(blocks)
    own = covariance.reshape(blocks, steps, blocks, steps)[at, :, at, :]
    variance = np.diagonal(own.cumsum(1).cumsum(2), axis1=1, axis2=2)
    return np.concatenate([np.zeros((blocks, 1)), np.sqrt(np.maximum(variance, 0.0))], axis=1)
