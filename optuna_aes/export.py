"""A model as a folder to take away: sizes, weights and schema, and the loader that makes it a module again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset, Schema, atomic_folder
from optuna_aes.data.encoder import ENCODER_FILES
from optuna_aes.errors import DataError, InputError
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.strategies.ihas.routed import RoutedModel, RouterOptions, routed_model

FORMAT = 1
SIZES, WEIGHTS, SCHEMA = "sizes.json", "model.safetensors", "schema.json"


def save_model(
    out: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    dataset: Dataset,
    *,
    sizes: Mapping[str, int],
    dim: int,
    options: ModelOptions,
    router: RouterOptions | None = None,
    facts: Mapping[str, Any] | None = None,
    partition: Partition | None = None,
) -> Path:
    """Writes a :class:`CTRModel`, or a :class:`RoutedModel`, to a folder, whole or not at all.

    The folder holds ``sizes.json`` (sizes, model options and facts), ``model.safetensors``, ``schema.json``, and where the
    dataset was encoded from a raw table, the encoder's files, so that raw rows can be encoded where the model is served.

    Args:
        out: The folder; an earlier export there is replaced.
        weights: The model's state.
        dataset: The data it was trained on.
        sizes: Embedding size of every field, of every block of ``partition``, or of every ``field@cluster`` where there
            is a router.
        dim: The common width D.
        options: What the model is made of.
        router: What sends each row to its cluster's model, for sizes by cluster.
        facts: What a reader of ``sizes.json`` wants to know besides, JSON-ready.
        partition: Blocks within and over fields, if the model has them.

    Returns:
        The folder.

    Raises:
        InputError: If ``out`` exists and is not an export.
    """
    target = Path(out)
    if target.exists() and not (target.is_dir() and ((target / SIZES).exists() or not any(target.iterdir()))):
        raise InputError(f"out={str(target)!r} exists and is not an export of a model: give another folder")
    description = {"format": FORMAT, **(facts or {}), "sizes": dict(sizes), "dim": dim, "model": asdict(options)}
    if partition is not None:
        description["blocks"] = partition.to_json()
    if router is not None:
        description["router"] = asdict(router)
    with atomic_folder(target) as folder:
        (folder / WEIGHTS).write_bytes(save(dict(weights)))  # save_file would make it readable by its owner alone
        _write_json(folder / SIZES, description)
        _write_json(folder / SCHEMA, dataset.schema.to_json())
        for name in ENCODER_FILES:
            if dataset.folder is not None and (dataset.folder / name).exists():
                shutil.copy2(dataset.folder / name, folder / name)
    return target


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def load_model(folder: str | os.PathLike[str]) -> CTRModel | RoutedModel:
    """The exported model, ready to predict.

    Args:
        folder: What :func:`save_model` wrote.

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
        given = description["model"]
        options = ModelOptions(**{**given, "hidden": tuple(given["hidden"])})
        model = _model(schema, description, options)
        model.load_state_dict(load_file(path / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not an exported model ({reason}): export the model again") from error
    return model.eval()


def _model(schema: Schema, description: Mapping[str, Any], options: ModelOptions) -> CTRModel | RoutedModel:
    sizes, dim = description["sizes"], int(description["dim"])
    if "router" not in description:
        blocks = description.get("blocks")
        partition = None if blocks is None else Partition.from_json(blocks)
        return CTRModel(schema, sizes, dim=dim, options=options, partition=partition)
    return routed_model(schema, sizes, dim=dim, options=options, router=RouterOptions(**description["router"]))
