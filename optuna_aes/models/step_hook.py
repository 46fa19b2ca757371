"""What others do in a training: supernets that draw their subnets, processes that share their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class StepHook:
    """What is added to the steps of a training; every method is called on the training thread, and here does nothing."""

    def before(self, step: int, steps: int) -> None:
        """Called before step ``step`` of ``steps`` in all."""

    def after(self, step: int, losses: Tensor) -> None:
        """Called after the backward pass, before the update; the loss of every row of the batch, shape ``(batch,)``.

        Of a batch that goes through the model in parts, the losses are those of the last part.
        """

    def scored(self, auc: float) -> float:
        """Called after every epoch with its validation AUC; gives the one that counts."""
        return auc

    def state(self) -> dict[str, Any]:
        """JSON-ready state, for a checkpoint."""
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
