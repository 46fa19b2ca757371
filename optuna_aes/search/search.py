"""A search from end to end: create or go on with it, run its stages, look at its front."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from optuna.storages import RDBStorage

from optuna_aes.budget import MemoryBudget, parse_budget
from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import backbone_class
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.reproducible import deterministic
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search import settings as settings_of
from optuna_aes.search import studies as studies_of
from optuna_aes.search.choose import chosen
from optuna_aes.search.context import Context
from optuna_aes.search.data import open_dataset, where
from optuna_aes.search.export import export_model
from optuna_aes.search.fit import check_shared, fit, share_supernet
from optuna_aes.search.precheck import check_batches, planned, settings_for
from optuna_aes.search.progress import Listener, Silent
from optuna_aes.search.read import Record, history, open_record, result, status
from optuna_aes.search.records import Picks
from optuna_aes.search.results import History, Result
from optuna_aes.search.retrain import check_inherits, retrain
from optuna_aes.search.score import score
from optuna_aes.search.settings import Plan
from optuna_aes.search.task import Task
from optuna_aes.search.variant import OWN, Variant
from optuna_aes.storage import check_artifacts, open_artifact_store, open_storage
from optuna_aes.storage.presence import present
from optuna_aes.strategies.adass.strategy import AdaSS
from optuna_aes.strategies.base import OneShot, Strategy
from optuna_aes.strategies.registry import strategy_class

MOST_WORKERS = 256
STAGES = ("fit", "search", "retrain")


class Search:
    """A search for embedding sizes: three Optuna studies, ``<name>/fit``, ``<name>`` and ``<name>/retrain``.

    Make one with :meth:`create` or :meth:`load`.

    Example:
        >>> search = Search.create(task, strategy=AdaSS(), budget=0.25, storage="sqlite:///aes.db", name="clicks")
        >>> search.run()
        >>> search.pareto().best
    """

    def __init__(self, context: Context, record: Record) -> None:
        self.context = context
        self.record = record

    @classmethod
    def create(
        cls,
        task: Task,
        *,
        name: str,
        storage: str | RDBStorage,
        strategy: Strategy | None = None,
        budget: float | str | MemoryBudget = 0.25,
        trials: int = 300,
        retrain: int = 5,
        retrain_seeds: int = 1,
        reference: bool = True,
        seed: int = 0,
        artifacts: str | None = None,
        picks_at: Sequence[float] | None = None,
        supernet_of: str | None = None,
        trained_by: Sequence[str] = (),
        listener: Listener | None = None,
    ) -> Search:
        """Creates a search, or takes up the one of that name that was created with the same settings.

        Args:
            task: Data and model.
            name: Name of the search and its main study.
            storage: URL of the database, or an opened one.
            strategy: Fits and scores; AdaS&S with its defaults if not given.
            budget: A budget, or what :func:`optuna_aes.budget.parse_budget` reads: ``0.25``, ``100000``, ``"512MiB"``.
            trials: Subnets to score.
            retrain: Searched sizes to train from scratch.
            retrain_seeds: How often each.
            reference: Whether the uniform sizes 1, 2, 4, … D are trained too.
            seed: Seed of fit, search and retraining.
            artifacts: Where checkpoints go: a folder, ``s3://bucket``, or None for the database itself.
            picks_at: Shares of the budget at which one choice of sizes each is picked and trained, in place of ``retrain``
                along the strategy's own levels: for searches that are to be compared.
            supernet_of: Another search in the storage, whose trained supernet is taken instead of fitting one again.
            trained_by: Other searches in the storage. What they have trained from scratch is taken over where it is the
                same: data, model, training, sizes and seed.
            listener: Hears of progress.

        Raises:
            InputError: If a value is out of range, or the other search's supernet is not there or not the same.
            StudyMismatchError: If the name is taken by a search with other settings.
            StorageError: If the storage cannot be opened.
        """
        studies_of.check_name(name)
        settings_of.check_seed(seed)
        fixed = None if picks_at is None else tuple(picks_at)
        plan = Plan(trials=trials, retrain=retrain, retrain_seeds=retrain_seeds, reference=reference, picks_at=fixed)
        strategy = strategy or AdaSS()
        partition = strategy.partition(task.dataset)
        space = task.space_of(partition)
        if not isinstance(budget, MemoryBudget):
            budget = parse_budget(space, budget)
        elif (budget.space.blocks, budget.space.candidates) != (space.blocks, space.candidates):
            raise InputError(
                "budget was made for another space than the task's: make it with MemoryBudget(task.space, …)"
            )
        budget = MemoryBudget(strategy.space(budget.space), params=budget.params)
        check_batches(task.model, strategy, task.train, task.fit_options)
        # Whatever can fail does so before the first thing is created.
        check_artifacts(artifacts)
        opened = open_storage(storage)
        open_artifact_store(artifacts, opened)
        lender = None
        if supernet_of is not None and isinstance(strategy, OneShot):
            lender = open_record(supernet_of, opened)
            check_shared(task, strategy, lender)
        others = tuple(open_record(other, opened) for other in trained_by)
        studies = studies_of.create(opened, name)
        strategy = planned(strategy, plan, studies.search.user_attrs.get(settings_of.SETTINGS))
        settings = settings_for(
            dataset=task.dataset.fingerprint,
            space=space,
            strategy=strategy,
            budget=budget.params,
            model=task.model,
            train=task.train,
            fit=task.fit_options,
            seed=seed,
            artifacts=artifacts,
            blocks=None if partition is None else partition.to_json(),
        )
        settings_of.write(studies.search, settings, plan, where(task.dataset))
        if lender is not None:
            share_supernet(studies.fit, lender)
        return cls._assemble(
            task, strategy, budget, seed, opened, studies, artifacts, listener, name, trained_by=others
        )

    @classmethod
    def load(
        cls,
        name: str,
        storage: str | RDBStorage,
        *,
        dataset: Dataset | str | None = None,
        device: str = "auto",
        threads: int | None = None,
        poll: float = 2.0,
        tries_again: bool = True,
        listener: Listener | None = None,
    ) -> Search:
        """Takes up a search that exists, with all its settings from the storage.

        Args:
            name: Name of the search.
            storage: URL of the database, or an opened one.
            dataset: Its data, or the folder where it lies, as a path or ``s3://BUCKET/FOLDER``; see
                :func:`optuna_aes.search.data.open_dataset`.
            device: Where to train.
            threads: Threads of torch on the CPU.
            poll: Seconds between looks while other workers are busy.
            tries_again: Whether what failed for good in an earlier run is tried again.
            listener: Hears of progress.

        Raises:
            StorageError: If there is no such search.
            DataError: If the data is not there, or is not what the search was made with.
        """
        record = open_record(name, storage)
        settings = record.settings
        dataset = open_dataset(record, dataset, note=(listener or Silent()).note)
        task = Task(
            dataset=dataset,
            model=settings_of.revive(ModelOptions, settings["model"]),
            train=settings_of.revive(TrainOptions, settings["train"]),
            fit=settings_of.revive(TrainOptions, settings["fit"]),
            candidates=tuple(settings["candidates"]),
            device=device,
            threads=threads,
        )
        strategy = settings_of.revive(strategy_class(settings["strategy"]["name"]), settings["strategy"]["options"])
        return cls._assemble(
            task,
            strategy,
            record.budget,
            settings["seed"],
            record.storage,
            record.studies,
            settings["artifacts"],
            listener,
            name,
            poll,
            tries_again=tries_again,
        )

    @classmethod
    def _assemble(
        cls,
        task: Task,
        strategy: Strategy,
        budget: MemoryBudget,
        seed: int,
        storage: RDBStorage,
        studies: studies_of.Studies,
        artifacts: str | None,
        listener: Listener | None,
        name: str,
        poll: float = 2.0,
        *,
        trained_by: tuple[Record, ...] = (),
        tries_again: bool = True,
    ) -> Search:
        context = Context(
            task=task,
            strategy=strategy,
            budget=budget,
            seed=seed,
            studies=studies,
            storage=storage,
            store=open_artifact_store(artifacts, storage),
            listener=listener or Silent(),
            poll=poll,
            artifacts=artifacts,
            trained_by=trained_by,
            tries_again=tries_again,
        )
        return cls(context, open_record(name, storage))

    def run(self, stages: Sequence[str] = STAGES, *, workers: int = 1) -> Result:
        """Runs the stages that are not done yet, from where they stopped.

        Args:
            stages: Which of ``"fit"``, ``"search"`` and ``"retrain"``, in this order.
            workers: By how many processes on this machine; 1 is this one. They share the dataset, which has to lie in a
                folder, and divide the CPU's threads.

        Returns:
            What is found.
        """
        if not 1 <= workers <= MOST_WORKERS:
            raise InputError(f"workers={workers} is out of range: give 1 to {MOST_WORKERS}")
        unknown = [s for s in stages if s not in STAGES]
        if unknown:
            raise InputError(f"stages has {unknown[0]!r}: give some of {', '.join(STAGES)}")
        if workers > 1:
            from optuna_aes.search.local import run_local

            run_local(self, workers, stages)
            return self.pareto()
        self.context = context = replace(self.context)  # what it has looked up is of an earlier run
        assert context.failed_before is not None  # looked up now: what fails from here on is not tried again
        if context.task.threads is not None:
            torch.set_num_threads(context.task.threads)
        with (
            present(context.storage, self.record.name, str(context.device)),
            deterministic(context.task.train.deterministic),
        ):
            _run(context, stages)
        return self.pareto()

    def variant(self, *, backbone: str | None = None, inherited: bool = False) -> Search:
        """The same search with its picks retrained in another way, in a study of its own.

        Its :meth:`run`, :meth:`pareto` and :meth:`export` are those of the variant.

        Args:
            backbone: Another backbone: do sizes found with one serve another?
            inherited: Whether models start from the weights that they had in the supernet, and not from scratch.

        Raises:
            InputError: If the backbone is not known, or not made for the data, or there is nothing to inherit.

        Example:
            >>> Search.load("clicks", "sqlite:///aes.db").variant(backbone="dcnv2").run(["retrain"]).front
        """
        context, name = self.context, self.record.name
        wanted = self.check_variant(backbone=backbone, inherited=inherited)
        if wanted == OWN:
            return self
        chosen(context, context.plan)  # by the search itself: its supernet is not the variant's
        studies_of.create_variant(context.storage, name, wanted)
        record = open_record(name, context.storage, wanted)
        return Search(replace(context, variant=wanted, studies=record.studies), record)

    def check_variant(self, *, backbone: str | None = None, inherited: bool = False) -> Variant:
        """What :meth:`variant` is asked for, or its InputError; nothing is written."""
        context = self.context
        wanted = Variant(None if backbone == context.task.model.backbone else backbone, inherited)
        if wanted.backbone is not None:
            backbone_class(wanted.backbone).check_fields(len(context.task.dataset.schema.fields))
        if inherited:
            check_inherits(context)
        return wanted

    def picks(self) -> Picks:
        """What the search picks to be trained from scratch: decided once it is over, and kept."""
        return chosen(self.context, self.context.plan)

    def status(self) -> dict[str, Any]:
        """How far each stage is; see :func:`optuna_aes.search.read.status`."""
        return status(self.record)

    def pareto(self) -> Result:
        """The retrained points and their front."""
        return result(self.record)

    def history(self) -> History:
        """How the search went."""
        return history(self.record)

    def export(self, out: str | os.PathLike[str], *, trial: int | None = None) -> Path:
        """Writes a retrained model to a folder; see :func:`optuna_aes.search.export.export_model`."""
        return export_model(self.record, out, trial=trial, dataset=self.context.task.dataset)


def _run(context: Context, stages: Sequence[str]) -> None:
    """The stages in their order; and from the search on again, where another run has asked for more meanwhile."""
    if "fit" in stages:
        fit(context)
    while True:
        if "search" in stages:
            score(context)
        plan = context.plan
        if "retrain" in stages:
            retrain(context, plan)
        if context.plan == plan:
            return
