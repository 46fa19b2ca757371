"""A study's trials as arrays, by one query with a row per trial. Optuna's own reading makes objects of every parameter."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, json_to_distribution
from optuna.storages._rdb.models import TrialValueModel
from sqlalchemy.engine import Connection

from optuna_aes.samplers.trials import TrialRows, as_number
from optuna_aes.storage._insert import PARAMS, TRIALS, USER_ATTRS, VALUES

# How each database gathers many rows into one JSON object. Row by row, Python takes five times as long.
GATHERS = {
    "sqlite": sa.func.json_group_object,
    "postgresql": sa.func.json_object_agg,
    "mysql": sa.func.json_objectagg,
    "mariadb": sa.func.json_objectagg,
}

_BLOCK = 2000  # trials whose parameters are Python objects at a time

_FIRST_VALUE = 5  # columns before it: id, number, state, total, params

_INFINITE = {
    TrialValueModel.TrialValueType.INF_POS: math.inf,
    TrialValueModel.TrialValueType.INF_NEG: -math.inf,
}


@dataclass(frozen=True)
class Selection:
    """Which trials of a study, and what of them; see :meth:`BulkStorage.read_trials`."""

    study_id: int
    names: tuple[str, ...]
    objectives: int
    after: int
    unfinished: tuple[int, ...]


def can_select(dialect: str) -> bool:
    """Whether the database can gather rows into JSON."""
    if dialect != "sqlite":
        return dialect in GATHERS
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.execute("SELECT json_group_object('a', 1)")
        except sqlite3.OperationalError:  # an old one, built without JSON
            return False
    return True


def select(connection: Connection, wanted: Selection) -> TrialRows:
    """Reads trials."""
    heads: list[tuple[int, int, int]] = []
    params = [np.empty((0, len(wanted.names)))]
    values = [np.empty((0, wanted.objectives))]
    total = None
    # Not with a cursor at the server: PostgreSQL plans for its first rows then, and took 13 s instead of 1 for 20,000.
    for block in connection.execute(_query(connection, wanted)).partitions(_BLOCK):
        total = block[0].total
        heads += [(row.trial_id, row.number, row.state.value) for row in block]
        params.append(np.array([_picked(row.params, wanted.names) for row in block], dtype=np.float64))
        values.append(np.array([_values(row, wanted.objectives) for row in block], dtype=np.float64))
    if total is None:
        total = connection.execute(sa.select(_count(wanted.study_id))).scalar()
    ids, numbers, states = np.array(heads, dtype=np.int64).reshape(-1, 3).T
    rows = TrialRows(
        total=int(total or 0),
        ids=ids,
        numbers=numbers,
        states=states,
        params=np.concatenate(params),
        values=np.concatenate(values),
    )
    _to_external(connection, rows, wanted.names)
    return rows


def user_attr(connection: Connection, study_id: int, key: str) -> dict[int, Any]:
    """An attribute of all trials that have it, by number."""
    query = sa.select(TRIALS.c.number, USER_ATTRS.c.value_json).join(TRIALS, TRIALS.c.trial_id == USER_ATTRS.c.trial_id)
    query = query.where(TRIALS.c.study_id == study_id, USER_ATTRS.c.key == key)
    return {number: json.loads(text) for number, text in connection.execute(query)}


def _query(connection: Connection, wanted: Selection) -> sa.Select[Any]:
    gather, trial = GATHERS[connection.dialect.name], TRIALS.c
    params = sa.select(gather(PARAMS.c.param_name, PARAMS.c.param_value)).where(PARAMS.c.trial_id == trial.trial_id)
    source: Any = TRIALS
    columns = [trial.trial_id, trial.number, trial.state, _count(wanted.study_id).label("total")]
    # As text: some drivers would make dictionaries of all rows at once.
    columns.append(sa.cast(params.scalar_subquery(), sa.Text).label("params"))
    for objective in range(wanted.objectives):
        # A column each, and not gathered: SQLite writes 15 digits into JSON.
        value = VALUES.alias()
        source = source.outerjoin(value, (value.c.trial_id == trial.trial_id) & (value.c.objective == objective))
        columns += [value.c.value.label(f"value{objective}"), value.c.value_type.label(f"type{objective}")]
    query = sa.select(*columns).select_from(source).where(trial.study_id == wanted.study_id)
    if wanted.after >= 0:
        query = query.where((trial.trial_id > wanted.after) | trial.trial_id.in_(wanted.unfinished))
    return query


def _count(study_id: int) -> sa.ScalarSelect[Any]:
    trials = TRIALS.alias()
    return sa.select(sa.func.count(trials.c.trial_id)).where(trials.c.study_id == study_id).scalar_subquery()


def _picked(gathered: str | None, names: tuple[str, ...]) -> list[float | None]:
    found = json.loads(gathered) if gathered else {}  # None where there was nothing to gather
    return [found.get(name) for name in names]  # an array makes None a NaN


def _values(row: Any, objectives: int) -> list[float | None]:
    return [_INFINITE.get(row[at + 1], row[at]) for at in range(_FIRST_VALUE, _FIRST_VALUE + 2 * objectives, 2)]


def _to_external(connection: Connection, rows: TrialRows, names: tuple[str, ...]) -> None:
    """Turns positions among the choices of categorical parameters, which is what is stored, into the choices."""
    has = ~np.isnan(rows.params)
    # A parameter keeps its choices throughout a study, so any trial that has it will do.
    samples = {names[at]: int(rows.ids[has[:, at].argmax()]) for at in np.flatnonzero(has.any(0))}
    query = sa.select(PARAMS.c.trial_id, PARAMS.c.param_name, PARAMS.c.distribution_json)
    query = query.where(PARAMS.c.trial_id.in_(set(samples.values())))
    for trial_id, name, text in connection.execute(query):
        if samples.get(name) != trial_id:
            continue
        distribution = json_to_distribution(text)
        if isinstance(distribution, CategoricalDistribution):
            at = names.index(name)
            choices = np.array([as_number(choice) for choice in distribution.choices])
            rows.params[has[:, at], at] = choices[rows.params[has[:, at], at].astype(np.int64)]
