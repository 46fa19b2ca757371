"""Take a retrained model away: a folder with sizes, weights and schema, and a loader that gives a ready module."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from optuna_aes.data.dataset import Dataset, Schema, atomic_folder
from optuna_aes.data.encoder import ENCODER_FILES
from optuna_aes.errors import DataError, InputError
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.search.read import Record, result
from optuna_aes.search.records import METRICS, SEED, job_key
from optuna_aes.search.settings import revive
from optuna_aes.search.studies import complete
from optuna_aes.storage import Checkpoints, open_artifact_store

FORMAT = 1
SIZES, WEIGHTS, SCHEMA = "sizes.json", "model.safetensors", "schema.json"


def export_model(
    record: Record, out: str | os.PathLike[str], *, trial: int | None = None, dataset: Dataset | None = None
) -> Path:
    """Writes a retrained model to a folder, whole or not at all.

    The folder holds ``sizes.json`` (sizes, model options and metrics), ``model.safetensors``, ``schema.json``, and where the
    dataset was encoded from a raw table, the encoder's files, so that raw rows can be encoded where the model is served.

    Args:
        record: The search.
        out: The folder; an earlier export there is replaced.
        trial: Number of the retrain trial; by default the searched point inside the budget that is best on validation.
        dataset: The search's data; opened from the folder that the search names if not given.

    Returns:
        The folder.

    Raises:
        InputError: If there is no such trial, or ``out`` exists and is not an export.
        DataError: If the dataset is gone, or another one.
    """
    chosen = _chosen_trial(record, trial)
    target = Path(out)
    if target.exists() and not (target.is_dir() and ((target / SIZES).exists() or not any(target.iterdir()))):
        raise InputError(f"out={str(target)!r} exists and is not an export of a model: give another folder")
    schema, source = _schema(record, dataset)
    found = next(t for t in complete(record.studies.retrain) if t.number == chosen)
    sizes = record.retrain_space.from_params(found.params)
    key = f"model/{job_key(sizes, int(found.user_attrs[SEED]))}"
    store = open_artifact_store(record.settings["artifacts"], record.storage)
    weights = Checkpoints(store, record.studies.retrain, key=key, keep=1).load()
    if weights is None:
        raise DataError(f"the weights of trial {chosen} are not in the artifact store any more: run the search again")
    cost = record.space.cost(sizes)
    description = {
        "format": FORMAT,
        "study": record.name,
        "trial": chosen,
        "sizes": sizes,
        "dim": record.space.full,
        "params": cost.params,
        "bytes": cost.bytes,
        "model": record.settings["model"],
        "metrics": found.user_attrs[METRICS],
    }
    with atomic_folder(target) as folder:
        save_file(weights[0], folder / WEIGHTS)
        (folder / SIZES).write_text(json.dumps(description, indent=1, ensure_ascii=False), encoding="utf-8")
        (folder / SCHEMA).write_text(json.dumps(schema.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
        for name in ENCODER_FILES:
            if source is not None and (source / name).exists():
                shutil.copy2(source / name, folder / name)
    return target


def load_model(folder: str | os.PathLike[str]) -> CTRModel:
    """The exported model, ready to predict.

    Args:
        folder: What :func:`export_model` wrote.

    Returns:
        A module in evaluation mode that takes int32 ids of shape ``(batch, columns)`` and gives logits of shape
        ``(batch,)``; its sigmoid is the click probability.

    Raises:
        DataError: If the folder is not an export, or is of another format version.
    """
    path = Path(folder)
    try:
        description = json.loads((path / SIZES).read_text(encoding="utf-8"))
        schema = Schema.from_json(json.loads((path / SCHEMA).read_text(encoding="utf-8")))
        if description.get("format") != FORMAT:
            raise DataError(
                f"{path} has format {description.get('format')!r}, this release reads {FORMAT}: export the model again"
            )
        options = revive(ModelOptions, description["model"])
        model = CTRModel(schema, description["sizes"], dim=int(description["dim"]), options=options)
        model.load_state_dict(load_file(path / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not an exported model ({reason}): export the model again") from error
    return model.eval()


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


def _schema(record: Record, dataset: Dataset | None) -> tuple[Schema, Path | None]:
    folder: Any = record.data["folder"]
    if dataset is None:
        if folder is None or not Path(folder).is_dir():
            where = "was in memory only" if folder is None else f"is not at {folder} any more"
            raise DataError(f"the dataset of search {record.name!r} {where}: give it with dataset=…")
        dataset = Dataset.open(folder)
    if dataset.fingerprint != record.settings["dataset"]:
        raise DataError(
            f"the dataset's fingerprint is {dataset.fingerprint}, search {record.name!r} was made with "
            f"{record.settings['dataset']}"
        )
    return dataset.schema, dataset.folder
