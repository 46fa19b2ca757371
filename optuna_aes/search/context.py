"""What every stage of a search works with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.data.blocks import Partition
from optuna_aes.errors import StorageError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.training import Epoch, OnEpoch, Trainer, TrainState
from optuna_aes.search.progress import Listener
from optuna_aes.search.settings import Plan, plan_of
from optuna_aes.search.studies import Studies
from optuna_aes.search.task import Task, resolve_device
from optuna_aes.search.variant import OWN, Variant
from optuna_aes.search.work import Crew, Held
from optuna_aes.space import EmbeddingSpace
from optuna_aes.storage import Checkpoints
from optuna_aes.strategies.base import OneShot, Strategy

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import optuna
    from optuna.artifacts._protocol import ArtifactStore

    from optuna_aes.search.read import Record


@dataclass(frozen=True)
class Context:
    """A search that is ready to run.

    Args:
        task: Data and model.
        strategy: Fits and scores.
        budget: What the sizes must fit.
        seed: Seed of fit, search and retraining.
        studies: Where it is recorded.
        storage: The database of the studies.
        store: Where checkpoints and weights go.
        listener: Hears of progress.
        poll: Seconds between looks while other workers are busy.
        artifacts: Where the user wanted them; None for the database itself.
        trained_by: Other searches in the storage whose trainings are taken over where they are the same.
        tries_again: Whether what failed for good in an earlier run is laid out again.
        variant: How sizes are retrained.
    """

    task: Task
    strategy: Strategy
    budget: MemoryBudget
    seed: int
    studies: Studies
    storage: RDBStorage
    store: ArtifactStore
    listener: Listener
    poll: float = 2.0
    artifacts: str | None = None
    trained_by: tuple[Record, ...] = ()
    tries_again: bool = True
    variant: Variant = OWN

    @property
    def plan(self) -> Plan:
        """How much is asked for now: looked up each time, as another run may raise it while this one works."""
        return plan_of(self.studies.search)

    @cached_property
    def crew(self) -> Crew:
        """How this worker waits for others."""
        return Crew(self.listener, self.poll)

    @cached_property
    def failed_before(self) -> frozenset[tuple[str, int]]:
        """Study and number of the trials that had failed when this was asked first, at the run's start."""
        studies = (self.studies.fit, self.studies.search, self.studies.retrain)
        return frozenset(
            (study.study_name, trial.number)
            for study in studies
            for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
        )

    def given_up(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether a trial has failed for good, and is not to be tried again by this run."""
        known = self.tries_again and (study.study_name, trial.number) in self.failed_before
        return trial.state == TrialState.FAIL and not known

    @cached_property
    def partition(self) -> Partition | None:
        """Blocks within and over fields, where the strategy has them."""
        return self.strategy.partition(self.task.dataset)

    @cached_property
    def space(self) -> EmbeddingSpace:
        """What is searched."""
        return self.strategy.space(self.task.space_of(self.partition))

    @cached_property
    def retrain_space(self) -> EmbeddingSpace:
        """What is searched, with the sizes of the reference points among the candidates."""
        return self.strategy.space(self.task.retrain_space_of(self.partition))

    @cached_property
    def retrain_model(self) -> ModelOptions:
        """What the models of the retrain stage are made of."""
        backbone = self.variant.backbone
        return self.task.model if backbone is None else replace(self.task.model, backbone=backbone)

    @property
    def one_shot(self) -> OneShot:
        """The strategy, in those stages that only one with a supernet comes to."""
        assert isinstance(self.strategy, OneShot)
        return self.strategy

    @cached_property
    def device(self) -> torch.device:
        """Where tensors are."""
        return resolve_device(self.task.device)

    def checkpoints(self, study: optuna.Study, key: str, *, keep: int = 2) -> Checkpoints:
        """The checkpoints of one piece of work."""
        # Where one is kept there is none to go back to, and who reads it says what it does without.
        return Checkpoints(self.store, study, key=key, keep=keep, note=self.listener.note if keep > 1 else _unsaid)


def _unsaid(text: str) -> None:
    _logger.info("%s", text)


def resume(trainer: Trainer, checkpoints: Checkpoints) -> int:
    """Puts a trainer where its last whole checkpoint was; the number of epochs that are done."""
    found = checkpoints.load()
    if found is None:
        return 0
    tensors, meta, epoch = found
    trainer.load(TrainState(tensors, meta))
    return epoch


def saving(checkpoints: Checkpoints, held: Held, listener: Listener) -> OnEpoch:
    """A callback that writes a checkpoint at every epoch's end, while the trial is this worker's.

    One that cannot be written, as on a full disk, is done without: the next one may succeed.
    """

    def save(epoch: Epoch, state: Callable[[], TrainState]) -> None:
        held.check()
        now = state()
        try:
            checkpoints.save(now.tensors, now.meta, step=epoch.number)
        except StorageError as error:
            listener.note(f"{error}: going on without")

    return save
