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

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        """See :class:`Policy`."""
        self.finished += len(values)
        scale = float(values.std()) or 1.0
        used = self.problem.used(choices) / self.problem.budgets[level]
        reward = values / scale - self.price[level] * self._penalty(used)
        baseline = float(reward.mean())
        if self.options.estimator == "ema":
            before = self.ema[level]
            self.ema[level] = baseline if np.isnan(before) else 0.8 * before + 0.2 * baseline
            baseline = baseline if np.isnan(before) else float(before)
        policy = self.probabilities(level)
        advantage = np.repeat((reward - baseline)[:, None], self.blocks, axis=1)
        if self.options.penalty == "compete":
            advantage = advantage - self._competition(choices, used, policy, level)
        chosen = choices[:, :, None] == np.arange(self.candidates)
        gradient = (advantage[:, :, None] * (chosen - policy)).mean(0)
        left = max(0.0, 1.0 - self.finished / self.options.horizon)
        gradient += self.options.entropy * left * _entropy_gradient(policy)
        self._adam(gradient, level)
        expected = float((policy * self.problem.params).sum()) / self.problem.budgets[level]
        self.price[level] = max(0.0, self.price[level] + self.options.price_lr * (expected - 1.0))

    def _penalty(self, used: Floats) -> Floats:
        if self.options.penalty == "hinge":
            return np.maximum(0.0, used - 1.0)
        if self.options.penalty == "abs":
            return np.abs(used - 1.0)
        return np.zeros_like(used)

    def _competition(self, choices: Ints, used: Floats, policy: Floats, level: int) -> Floats:
        """What each block takes beyond its expected share, while the policy as a whole is over budget.

        Draws are conditioned on the budget, so it is the expected memory that tells whether the fields compete.
        """
        params, budget = self.problem.params, self.problem.budgets[level]
        expected = (policy * params).sum(1)
        if expected.sum() <= budget and (used <= 1).all():
            return np.zeros(choices.shape)
        taken = params[np.arange(self.blocks), choices]
        return np.asarray(self.price[level] * (taken - expected) / budget)

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
