"""Planted click data: the embedding size that every field needs is known, and so is the best AUC possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optuna_aes.data.dataset import Dataset, FieldSpec, Schema, Split
from optuna_aes.errors import InputError


@dataclass(frozen=True)
class PlantedField:
    """A field of planted data.

    Args:
        name: The field's name.
        values: Distinct values; its table has one more row, for values that training rows do not show.
        rank: Latent rank: how many latent columns carry its interactions, so the embedding size it needs. 0 for a field
            that is pure noise.
        main: Standard deviation of its first-order effect.
        zipf: Exponent of the values' frequencies.
        population: Which of two hidden populations of rows the field has a say in, 0 or 1; in both if None.
    """

    name: str
    values: int
    rank: int
    main: float = 0.5
    zipf: float = 1.1
    population: int | None = None


DEMO_FIELDS: tuple[PlantedField, ...] = (
    PlantedField("user", 1000, 4),
    PlantedField("item", 600, 4),
    PlantedField("shop", 200, 2),
    PlantedField("category", 60, 2),
    PlantedField("city", 100, 1),
    PlantedField("device", 20, 1),
    PlantedField("hour", 24, 1),
    PlantedField("session", 1500, 0, main=0.0),
    PlantedField("cookie", 500, 0, main=0.0),
    PlantedField("banner", 30, 0, main=0.0),
)

MIXED_FIELDS: tuple[PlantedField, ...] = (
    PlantedField("app", 40, 2, zipf=0.5),
    PlantedField("film", 300, 4, population=0),
    PlantedField("actor", 200, 4, population=0),
    PlantedField("genre", 30, 2, population=0),
    PlantedField("song", 300, 4, population=1),
    PlantedField("singer", 200, 4, population=1),
    PlantedField("mood", 30, 2, population=1),
    PlantedField("session", 300, 0, main=0.0),
)
"""Fields of two populations: half of the apps show films, the others play songs. Give them ``by="app"``."""


def planted(
    fields: Sequence[PlantedField] = DEMO_FIELDS,
    *,
    rows: tuple[int, int, int] = (240_000, 40_000, 40_000),
    interaction: float = 1.6,
    click_rate: float = 0.3,
    by: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Draws a click table whose true logit is known.

    The logit of a row is a constant, the first-order effects of its values, and the inner products of its values'
    latent vectors over all pairs of fields. A field of rank r has latent vectors in a space of r dimensions, so sizes
    above r hold nothing; a noise field has neither effect nor latent vector.

    Where ``by`` names a field, each of its values belongs to one of two hidden populations, and so do its rows: fields of
    the other population have no part in their logits.

    Args:
        fields: The fields to plant.
        rows: Rows of the training, validation and test splits.
        interaction: Standard deviation of the pairwise part of the logit.
        click_rate: Mean of the labels, roughly.
        by: The field whose values decide on the population, if there are two.
        seed: Seed of everything drawn.

    Returns:
        A dataset in memory. Its ``facts`` hold ``bayes_auc`` (the AUC of the true probabilities on the test rows),
        ``ranks`` and ``noise`` (the noise fields' names), and with ``by`` the ``populations`` of the fields.

    Raises:
        InputError: If no field carries signal, a field has fewer than 2 values, a number is out of range, or fields have
            populations and ``by`` names none of the fields, or the other way round.
    """
    _check_populations(fields, by)
    if any(f.values < 2 for f in fields):
        raise InputError("planted data needs 2 or more values in every field")
    if sum(f.rank > 0 for f in fields) < 2 and not any(f.main > 0 for f in fields):
        raise InputError("planted data needs signal: a field with main above 0, or two of rank above 0 that interact")
    if not 0 < click_rate < 1 or min(rows) < 1:
        raise InputError(f"click_rate={click_rate} must be in (0, 1), and rows={rows} at least 1 in every split")
    rng = np.random.default_rng(seed)
    total = sum(rows)
    ids = np.stack([_zipf(rng, f, total) for f in fields], axis=1)
    logit = _logit(rng, fields, ids, interaction, _population(fields, ids, by, seed))
    logit += _intercept(logit, click_rate)
    probability = 1.0 / (1.0 + np.exp(-logit))
    labels = (rng.random(total) < probability).astype(np.uint8)
    train, valid = rows[0], rows[0] + rows[1]
    encoded, cardinalities = _encode(ids, train)
    cut = {"train": slice(0, train), "valid": slice(train, valid), "test": slice(valid, total)}
    schema = Schema(
        tuple(FieldSpec(f.name, "categorical", n) for f, n in zip(fields, cardinalities, strict=True)), label="click"
    )
    from sklearn.metrics import roc_auc_score  # 140 MiB, which only planted data needs

    facts = {
        "bayes_auc": float(roc_auc_score(labels[cut["test"]], probability[cut["test"]])),
        "ranks": {f.name: f.rank for f in fields},
        "noise": [f.name for f in fields if f.rank == 0 and f.main == 0],
    }
    if by is not None:
        facts["populations"] = {f.name: f.population for f in fields}
    return Dataset.from_arrays(schema, {name: Split(encoded[s], labels[s]) for name, s in cut.items()}, facts=facts)


def bayes_share(auc: float, bayes_auc: float) -> float:
    """Share of what is possible: (AUC − 0.5) / (AUC_Bayes − 0.5)."""
    return (auc - 0.5) / (bayes_auc - 0.5)


def _zipf(rng: np.random.Generator, field: PlantedField, rows: int) -> npt.NDArray[np.int64]:
    weight = np.arange(1, field.values + 1, dtype=np.float64) ** -field.zipf
    return rng.choice(field.values, size=rows, p=weight / weight.sum())


def _check_populations(fields: Sequence[PlantedField], by: str | None) -> None:
    if any(f.population not in (None, 0, 1) for f in fields):
        raise InputError("population of a planted field must be 0, 1 or None")
    if by is not None and by not in [f.name for f in fields if f.population is None]:
        raise InputError(f"by={by!r} must be a field of both populations: it tells them apart")
    if by is None and any(f.population is not None for f in fields):
        raise InputError("planted data with populations needs by=…, the field that tells them apart")


def _population(
    fields: Sequence[PlantedField], ids: npt.NDArray[np.int64], by: str | None, seed: int
) -> npt.NDArray[np.int64]:
    """The population of every row."""
    if by is None:
        return np.zeros(len(ids), dtype=np.int64)
    column = [f.name for f in fields].index(by)
    # A generator of its own, so that the rest is drawn as without populations. Of neighbours in frequency one value goes
    # here and one there, which makes the populations equally large, roughly.
    pairs = np.random.default_rng((seed, 1)).random((-(-fields[column].values // 2), 1)) < 0.5
    of_value = np.concatenate([pairs, ~pairs], axis=1).reshape(-1).astype(np.int64)
    return of_value[ids[:, column]]


def _logit(
    rng: np.random.Generator,
    fields: Sequence[PlantedField],
    ids: npt.NDArray[np.int64],
    interaction: float,
    population: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    width = max(f.rank for f in fields)
    first = np.zeros(len(ids))
    total, squares = np.zeros((len(ids), width)), np.zeros(len(ids))
    for column, field in enumerate(fields):
        part = 1.0 if field.population is None else (population == field.population).astype(np.float64)
        first += part * field.main * rng.standard_normal(field.values)[ids[:, column]]
        latent = np.zeros((field.values, width))
        latent[:, : field.rank] = rng.standard_normal((field.values, field.rank)) / max(1, field.rank) ** 0.5
        rows = latent[ids[:, column]] * np.reshape(part, (-1, 1))
        total += rows
        squares += (rows**2).sum(1)
    if sum(f.rank > 0 for f in fields) < 2:  # a vector on its own has nothing to interact with
        return first
    pairs = 0.5 * ((total**2).sum(1) - squares)
    return np.asarray(first + interaction * (pairs - pairs.mean()) / pairs.std())


def _intercept(logit: npt.NDArray[np.float64], click_rate: float) -> float:
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = float((1.0 / (1.0 + np.exp(-(logit + middle)))).mean())
        low, high = (middle, high) if mean < click_rate else (low, middle)
    return low


def _encode(ids: npt.NDArray[np.int64], train: int) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Ids by frequency in the training rows, from 1; values they do not show become 0."""
    encoded = np.zeros(ids.shape, dtype=np.int32)
    cardinalities = []
    for column in range(ids.shape[1]):
        counts = np.bincount(ids[:train, column], minlength=int(ids[:, column].max()) + 1)
        order = np.argsort(-counts, kind="stable")
        seen = int((counts > 0).sum())
        rank = np.zeros(len(counts), dtype=np.int32)
        rank[order[:seen]] = np.arange(1, seen + 1)
        encoded[:, column] = rank[ids[:, column]]
        cardinalities.append(seen + 1)
    return encoded, cardinalities
