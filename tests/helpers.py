"""Small datasets and models for the tests, as plain functions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from optuna_aes.data.dataset import PAD, Dataset, FieldSpec, Schema, Split

PLAIN = Schema(
    (FieldSpec("user", "categorical", 30), FieldSpec("item", "categorical", 50), FieldSpec("hour", "numeric", 8))
)
WITH_BAG = Schema(
    (
        FieldSpec("user", "categorical", 30),
        FieldSpec("tags", "multi", 12, width=3),
        FieldSpec("item", "categorical", 50),
        FieldSpec("shop", "multi", 7, width=2),
    )
)


def random_ids(schema: Schema, rows: int, *, seed: int = 0) -> np.ndarray:
    """int32 ids of all values, the out-of-vocabulary one included; bags of every length, from empty to full."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in schema.fields:
        block = rng.integers(0, field.cardinality, (rows, field.width))
        if field.kind == "multi":
            length = rng.integers(0, field.width + 1, rows)
            block[np.arange(field.width) >= length[:, None]] = PAD
        columns.append(block)
    return np.concatenate(columns, axis=1).astype(np.int32)


def tiny_split(schema: Schema = PLAIN, rows: int = 200, *, seed: int = 0) -> Split:
    """Rows whose label depends on the first field's value and, less, on the last column's."""
    rng = np.random.default_rng(seed + 10_000)
    ids = random_ids(schema, rows, seed=seed)
    logit = 2.0 * np.sin(ids[:, 0] * 1.7) + np.cos(ids[:, -1] * 2.3)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    labels[:2] = (0, 1)  # both classes, however few the rows
    return Split(ids, labels)


def tiny_dataset(schema: Schema = PLAIN, rows: tuple[int, int, int] = (300, 120, 120), *, seed: int = 0) -> Dataset:
    """Three such splits."""
    names = ("train", "valid", "test")
    splits = {n: tiny_split(schema, r, seed=3 * seed + i) for i, (n, r) in enumerate(zip(names, rows, strict=True))}
    return Dataset.from_arrays(schema, splits)


def ids_of(split: Split, rows: int | None = None) -> Tensor:
    """The first rows' ids as a tensor of its own."""
    return torch.from_numpy(np.array(split.ids[:rows]))
