"""REINFORCE over embedding sizes, with the resource competition penalty.

Reconstruction of AdaS&S's search (Wei et al., 2024, arXiv 2411.07504); the controller is as in TuNAS (Bender et al., 2020,
arXiv 2008.06120): independent logits per decision, zero at the start, Adam, a baseline, a price on the resource.
"""

from __future__ import annotations

import numpy as np

from optuna_aes.strategies.adass.policy import Floats, Ints, PolicyOptions, Problem, softmax


class ReinforcePolicy:
    """One table of logits per budget level, moved by policy gradients.

    Args:
        problem: Space and budgets.
        options: How sizes are searched.
    """

    def __init__(self, problem: Problem, options: PolicyOptions) -> None:
        self.problem = problem
        self.options = options
        self.blocks, self.candidates = problem.params.shape
        levels = len(problem.budgets)
        shape = (levels, self.blocks, self.candidates)
        self.logits: Floats = np.zeros(shape)
        self.mean: Floats = np.zeros(shape)
        self.square: Floats = np.zeros(shape)
        self.steps: Ints = np.zeros(levels, dtype=np.int64)
        self.price: Floats = np.full(levels, options.price)
        self.ema: Floats = np.full(levels, np.nan)
        self.finished = 0

    def probabilities(self, level: int) -> Floats:
        """See :class:`Policy`."""
        return softmax(self.logits[level])

    def moves(self, level: int, rng: np.random.Generator) -> Ints:
        """See :class:`Policy`: none."""
        return np.zeros((0, self.blocks), dtype=np.int64)

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        """See :class:`Policy`."""
        self.finished += len(values)
        spread, baseline = float(values.std()), float(values.mean())
        scale = spread if spread > 1e-12 * abs(baseline) else 1.0  # equal scores deviate by rounding errors
        if self.options.estimator == "ema":  # of the scores themselves: their deviation is another one in every group
            before = baseline if np.isnan(self.ema[level]) else float(self.ema[level])
            self.ema[level] = 0.8 * before + 0.2 * baseline
            baseline = before
        policy = self.probabilities(level)
        advantage = ((values - baseline) / scale)[:, None] - self.price[level] * self._penalty(choices, policy, level)
        chosen = choices[:, :, None] == np.arange(self.candidates)
        gradient = (advantage[:, :, None] * (chosen - policy)).mean(0)
        left = max(0.0, 1.0 - self.finished / self.options.horizon)
        gradient += self.options.entropy * left * _entropy_gradient(policy)
        self._adam(gradient, level)
        expected = float((policy * self.problem.params).sum()) / self.problem.budgets[level]
        self.price[level] = max(0.0, self.price[level] + self.options.price_lr * (expected - 1.0))

    def _penalty(self, choices: Ints, policy: Floats, level: int) -> Floats:
        """What every choice is charged, shape ``(trials, 1)``, or ``(trials, blocks)`` where blocks compete."""
        params, budget = self.problem.params, self.problem.budgets[level]
        if self.options.penalty == "compete":
            expected = (policy * params).sum(1)
            # Proposals are drawn inside the budget, so it is the policy's expectation that tells whether blocks compete.
            excess = expected.sum() > budget
            return np.asarray(excess * (params[np.arange(self.blocks), choices] - expected) / budget)
        over = self.problem.used(choices) / budget - 1.0
        charge = np.abs(over) if self.options.penalty == "abs" else np.maximum(0.0, over)
        return np.asarray(charge - charge.mean())[:, None]

    def _adam(self, gradient: Floats, level: int) -> None:
        self.steps[level] += 1
        step = int(self.steps[level])
        self.mean[level] = 0.9 * self.mean[level] + 0.1 * gradient
        self.square[level] = 0.99 * self.square[level] + 0.01 * gradient**2
        mean = self.mean[level] / (1 - 0.9**step)
        square = self.square[level] / (1 - 0.99**step)
        self.logits[level] += self.options.lr * mean / (np.sqrt(square) + 1e-8)


def _entropy_gradient(policy: Floats) -> Floats:
    """Gradient of the entropy with respect to the logits."""
    log = np.log(np.maximum(policy, 1e-30))
    return np.asarray(-policy * (log - (policy * log).sum(1, keepdims=True)))
