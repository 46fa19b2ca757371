"""What a search tells of its progress; a terminal, a notebook or a log can listen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from optuna_aes.models.training import Epoch


class Listener(Protocol):
    """Hears what a search does. Every method is called on the searching thread."""

    def stage(self, stage: str, finished: int, requested: int) -> None:
        """A stage begins (``"fit"``, ``"search"``, ``"retrain"``), with what is finished already.

        ``requested`` counts epochs of the fit, scored subnets of the search, and trainings of the retrain stage.
        """

    def note(self, text: str) -> None:
        """Something that a person should know, in one line."""

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        """A training step of the fit or of one retraining was done."""

    def epoch(self, epoch: Epoch, total: int) -> None:
        """An epoch of the fit ended."""

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        """A group of subnets was scored and recorded: best inherited AUC inside the budget, size of the front."""

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        """One choice of sizes was trained from scratch."""


class Silent:
    """Listens to nothing."""

    def stage(self, stage: str, finished: int, requested: int) -> None:
        """See :class:`Listener`."""

    def note(self, text: str) -> None:
        """See :class:`Listener`."""

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        """See :class:`Listener`."""

    def epoch(self, epoch: Epoch, total: int) -> None:
        """See :class:`Listener`."""

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        """See :class:`Listener`."""

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        """See :class:`Listener`."""
