"""What can be refused before any data is read or anything written: so that a slip costs a second, and leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.storages import RDBStorage

from optuna_aes.budget import parse_budget
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search import settings as settings_of
from optuna_aes.search.settings import Plan, reference_sizes
from optuna_aes.search.studies import check_name, find
from optuna_aes.search.task import check_place
from optuna_aes.space import ClusteredSpace, EmbeddingSpace
from optuna_aes.storage import check_artifacts, check_storage, open_storage
from optuna_aes.strategies.base import OneShot, Strategy
from optuna_aes.strategies.registry import name_of

# Stands in for a table that is not read yet: whatever is a budget of some table is a budget of this one.
_ANY_TABLE = {"any": 2**40}


@dataclass(frozen=True)
class Wish:
    """All that a search is made of, apart from its data.

    Args:
        name: Name of the search.
        storage: URL of the database.
        strategy: Fits and scores.
        budget: What :func:`optuna_aes.budget.parse_budget` reads.
        plan: How much is asked for.
        model: Backbone and the rest of the model.
        train: How models are trained from scratch.
        fit: How the supernet is trained; like ``train`` if None.
        candidates: Sizes to choose from.
        device: Where to train.
        threads: Threads of torch on the CPU.
        seed: Seed of fit, search and retraining.
        artifacts: Where checkpoints go.
    """

    name: str
    storage: str
    strategy: Strategy
    budget: str
    plan: Plan
    model: ModelOptions
    train: TrainOptions
    fit: TrainOptions | None
    candidates: tuple[int, ...]
    device: str
    threads: int | None
    seed: int
    artifacts: str | None


def refuse_early(wish: Wish) -> None:
    """Refuses whatever can be seen to fail without the data; writes nothing.

    Raises:
        InputError: If a value is out of range.
        StudyMismatchError: If the name is taken by a search with other settings.
        StorageError: If the storage, or the place for checkpoints, cannot be used.
    """
    check_name(wish.name)
    settings_of.check_seed(wish.seed)
    check_place(wish.device, wish.threads)
    check_batches(wish.model, wish.strategy, wish.train, wish.fit or wish.train)
    parse_budget(EmbeddingSpace(_ANY_TABLE, wish.candidates, align=wish.model.align), wish.budget)
    check_artifacts(wish.artifacts)
    if not check_storage(wish.storage):
        return
    opened = open_storage(wish.storage, must_exist=True)
    try:
        study = find(opened, wish.name)
        known = settings_of.known_settings(study) if study is not None else None
        if known is not None:
            _refuse_other(wish, known)
    finally:
        if isinstance(opened, RDBStorage):  # and not behind a proxy
            opened.engine.dispose()


def check_batches(model: ModelOptions, strategy: Strategy, train: TrainOptions, fit: TrainOptions) -> None:
    """Refuses a batch norm over single rows, which have no variance.

    Raises:
        InputError: If there would be one.
    """
    normed = model.batch_norm or (isinstance(strategy, OneShot) and strategy.normalises)
    if normed and min(train.batch_size, fit.batch_size) < 2:
        what = "batch_norm" if model.batch_norm else f"the supernet of {strategy}"
        raise InputError(f"batch_size=1 leaves {what} nothing to average over: give at least 2")


def _refuse_other(wish: Wish, known: Mapping[str, Any]) -> None:
    space = EmbeddingSpace(known["fields"], wish.candidates, align=wish.model.align)
    wanted = settings_for(
        dataset=known["dataset"],
        space=space,
        strategy=planned(wish.strategy, wish.plan, known),
        budget=parse_budget(space, wish.budget).params,
        model=wish.model,
        train=wish.train,
        fit=wish.fit or wish.train,
        seed=wish.seed,
        artifacts=wish.artifacts,
        blocks=known.get("blocks"),
    )
    settings_of.check_same(wish.name, known, wanted)


def planned(strategy: Strategy, plan: Plan, known: Mapping[str, Any] | None) -> Strategy:
    """The strategy as its search was begun: more trials under the same name go on as the first ones did.

    Args:
        strategy: What is asked for now.
        plan: How much is asked for now.
        known: The settings of the search of that name, where there is one.
    """
    if known is None or known["strategy"]["name"] != name_of(strategy):
        return strategy.planned(plan.trials)
    begun = settings_of.revive(type(strategy), known["strategy"]["options"])
    return strategy.planned(begun.horizon or plan.trials)


def settings_for(
    *,
    dataset: str,
    space: EmbeddingSpace,
    strategy: Strategy,
    budget: int,
    model: ModelOptions,
    train: TrainOptions,
    fit: TrainOptions,
    seed: int,
    artifacts: str | None,
    blocks: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What may never change under a search's name, JSON-ready.

    ``dataset`` is the data's fingerprint, ``blocks`` what a partition is as JSON.
    """
    searched = strategy.space(space)
    clusters = {"clusters": searched.to_json()} if isinstance(searched, ClusteredSpace) else {}
    divided = {} if blocks is None else {"blocks": dict(blocks)}
    return {
        "format": settings_of.FORMAT,
        "dataset": dataset,
        "fields": dict(zip(space.names, space.rows.tolist(), strict=True)),
        "candidates": list(space.candidates),
        "retrain_candidates": sorted({*space.candidates, *reference_sizes(space.full)}),
        "strategy": {
            "name": name_of(strategy),
            "options": settings_of.jsonable(strategy),
            "one_shot": isinstance(strategy, OneShot),
        },
        "budget": budget,
        "model": settings_of.jsonable(model),
        "train": settings_of.jsonable(train),
        "fit": settings_of.jsonable(fit),
        "seed": seed,
        "artifacts": artifacts,
        **clusters,
        **divided,
    }
