"""The way out of a search: a retrained model as a folder."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import DataError, InputError
from optuna_aes.export import save_model
from optuna_aes.models.model import ModelOptions
from optuna_aes.search.data import open_dataset
from optuna_aes.search.read import Record, result
from optuna_aes.search.records import METRICS, SEED, TRAINED_IN, job_key
from optuna_aes.search.settings import revive
from optuna_aes.search.studies import complete, load_study
from optuna_aes.space import ClusteredSpace
from optuna_aes.storage import Checkpoints, open_artifact_store
from optuna_aes.strategies.ihas.routed import RouterOptions
from optuna_aes.strategies.ihas.strategy import IHAS
from optuna_aes.strategies.registry import strategy_class


def export_model(
    record: Record, out: str | os.PathLike[str], *, trial: int | None = None, dataset: Dataset | None = None
) -> Path:
    """Writes a retrained model to a folder, whole or not at all; :func:`optuna_aes.load_model` reads it.

    Args:
        record: The search.
        out: The folder; an earlier export there is replaced.
        trial: Number of the retrain trial; by default the searched point inside the budget that is best on validation.
        dataset: The search's data; see :func:`optuna_aes.search.data.open_dataset`.

    Returns:
        The folder.

    Raises:
        InputError: If there is no such trial, or ``out`` exists and is not an export.
        DataError: If the dataset or the weights are gone.
    """
    number = _chosen_trial(record, trial)
    data = open_dataset(record, dataset)
    found = next(t for t in complete(record.studies.retrain) if t.number == number)
    sizes = record.retrain_space.from_params(found.params)
    key = f"model/{job_key(sizes, int(found.user_attrs[SEED]))}"
    store = open_artifact_store(record.settings["artifacts"], record.storage)
    weights = Checkpoints(store, _home(record, found), key=key, keep=1).load()
    if weights is None:
        raise DataError(
            f"the weights of trial {number} are not in the artifact store any more: export another trial, or search under a "
            "new name"
        )
    cost = record.space.cost(sizes)
    blocks = record.settings.get("blocks")
    return save_model(
        out,
        weights[0],
        data,
        sizes=sizes,
        dim=record.space.full,
        options=revive(ModelOptions, record.settings["model"]),
        router=_router(record),
        facts={
            "study": record.name,
            "trial": number,
            "params": cost.params,
            "bytes": cost.bytes,
            "metrics": found.user_attrs[METRICS],
        },
        partition=None if blocks is None else Partition.from_json(blocks),
    )


def _home(record: Record, trial: FrozenTrial) -> optuna.Study:
    """The study that holds a retrained model's weights: of a training that was taken over, another search's."""
    study: str | None = trial.user_attrs.get(TRAINED_IN)
    return record.studies.retrain if study is None else load_study(record.storage, study)


def _router(record: Record) -> RouterOptions | None:
    if not isinstance(record.space, ClusteredSpace):
        return None
    strategy = revive(strategy_class(record.settings["strategy"]["name"]), record.settings["strategy"]["options"])
    assert isinstance(strategy, IHAS)
    return strategy.router_options(record.space.full)


def _chosen_trial(record: Record, trial: int | None) -> int:
    found = result(record)
    if trial is not None:
        numbers = [t.number for t in complete(record.studies.retrain) if METRICS in t.user_attrs]
        if trial not in numbers:
            there = f"the retrained trials are {', '.join(map(str, numbers))}" if numbers else "none is retrained yet"
            raise InputError(f"trial={trial} is not a retrained trial of {record.name!r}: {there}")
        return trial
    if found.best is None:
        raise InputError(f"search {record.name!r} has no retrained sizes inside the budget yet: let it run to its end")
    return found.best.trial
