"""What DNIS adds to each training step: the step of the soft selection, and the tower held still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.dnis.selection import selection_step
from optuna_aes.strategies.dnis.unrolled import unrolled_gradient
from optuna_aes.strategies.pruning.base import gates
from optuna_aes.strategies.pruning.gradients import Batches, gate_gradient

if TYPE_CHECKING:
    from optuna_aes.strategies.dnis.strategy import DNIS


class SelectionHook(StepHook):
    """After the warm start, a step of α before each step of the weights.

    Args:
        supernet: A masked supernet, whose gates are α.
        valid: Batches that α learns from.
        train: Batches of the step that the second order looks ahead to.
        options: The strategy.
    """

    def __init__(self, supernet: Supernet, valid: Batches, train: Batches, options: DNIS) -> None:
        self.supernet = supernet
        self.valid = valid
        self.train = train
        self.options = options
        self.searches = False

    def before(self, step: int, steps: int) -> None:
        """Moves α; see :class:`optuna_aes.models.step_hook.StepHook`."""
        self.searches = step >= int(self.options.warmup * steps)
        if self.searches:
            alpha = gates(self.supernet).gate
            moved = selection_step(alpha, self._gradient(step), rate=self.options.rate, l1=self.options.l1)
            with torch.no_grad():
                alpha.copy_(moved)

    def after(self, step: int, losses: Tensor) -> None:
        """Holds the tower still: the optimiser leaves out what has no gradient."""
        if self.searches and self.options.freeze_tower:
            for parameter in self.supernet.backbone.parameters():
                parameter.grad = None

    def _gradient(self, step: int) -> Tensor:
        options = self.options
        if not options.second_order:
            return gate_gradient(self.supernet, *self.valid(step))
        return unrolled_gradient(
            self.supernet, self.valid(step), self.train(step), ahead=options.ahead, tower=not options.freeze_tower
        )
