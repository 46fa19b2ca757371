"""The data of the speed benchmarks: Frappe where it is at hand, and planted tables of 26 fields and a wished vocabulary."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from optuna_aes.data import Dataset, encode
from optuna_aes.data.dataset import FieldSpec, Schema
from optuna_aes.data.synthetic import PlantedField, planted

FIELDS = 26
FRAPPE = "frappe"
# Rows of vocabulary of the planted tables.
PLANTED = {"1M": 1_000_000, "5M": 5_000_000}


def planted_table(vocabulary: int, *, rows: int = 1_000_000, seed: int = 0) -> Dataset:
    """A planted table whose fields have from ten to a quarter of ``vocabulary`` values, in all as many as asked for.

    Tables have a row for every value there is, those included that the training rows at hand do not show: a vocabulary is
    collected over far more rows than a benchmark has time for.
    """
    low, high = 1.0, np.log10(vocabulary / 4)
    values = 10 ** (low + (high - low) * np.arange(FIELDS) / (FIELDS - 1))
    values = (values * vocabulary / values.sum()).astype(int).clip(10)
    fields = [PlantedField(f"f{i}", int(n), rank=4 if i % 3 else 0, main=0.4) for i, n in enumerate(values)]
    drawn = planted(fields, rows=(rows, 50_000, 100_000), seed=seed)
    specs = tuple(FieldSpec(f.name, "categorical", f.values + 1) for f in fields)
    return Dataset.from_arrays(Schema(specs, label="click"), dict(drawn.splits()))


def table(name: str, cache: Path, *, rows: int = 1_000_000) -> Dataset:
    """A table by name, encoded once and then memory-mapped from ``cache``.

    Raises:
        KeyError: If Frappe is asked for, and ``FRAPPE_DIR`` does not say where it is.
    """
    folder = cache / (name if name == FRAPPE else f"{name}-{rows}")
    if not folder.exists():
        if name == FRAPPE:
            encode(os.environ["FRAPPE_DIR"], folder)
        else:
            planted_table(PLANTED[name], rows=rows).save(folder)
    return Dataset.open(folder)
