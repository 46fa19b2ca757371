"""Many trials as rows of Optuna's own tables, in one statement per table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.engine import Connection

STUDIES = models.StudyModel.__table__
TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
INTERMEDIATE = models.TrialIntermediateValueModel.__table__
USER_ATTRS = models.TrialUserAttributeModel.__table__
SYSTEM_ATTRS = models.TrialSystemAttributeModel.__table__

Row = dict[str, Any]

# MySQL keeps no parts of a second in Optuna's columns, and rounds; others keep microseconds.
_PRECISION = {"mysql": timedelta(seconds=1), "mariadb": timedelta(seconds=1)}


@dataclass(frozen=True)
class Rows:
    """A group of trials before it has numbers.

    Args:
        trials: Their rows in Optuna's table of trials.
        details: Rows of the other tables, each with the position of its trial in place of ``trial_id``.
        distributions: The parameters' distributions, as JSON.
    """

    trials: list[Row]
    details: dict[sa.Table, list[Row]]
    distributions: dict[str, str]


def rows_of(templates: Sequence[FrozenTrial]) -> Rows:
    """The rows of a group; made before the study is locked, because this takes as long as the writing.

    Raises:
        ValueError: If two trials of the group have distributions of one parameter that do not go together.
    """
    texts = _Texts()
    details: dict[sa.Table, list[Row]] = {
        table: [] for table in (PARAMS, VALUES, USER_ATTRS, SYSTEM_ATTRS, INTERMEDIATE)
    }
    for at, trial in enumerate(templates):
        details[PARAMS] += [
            {
                "trial_id": at,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": texts.of(name, trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ]
        details[VALUES] += value_rows(at, trial.values or ())
        for table, attrs in ((USER_ATTRS, trial.user_attrs), (SYSTEM_ATTRS, trial.system_attrs)):
            details[table] += [{"trial_id": at, "key": key, "value_json": json.dumps(v)} for key, v in attrs.items()]
        details[INTERMEDIATE] += [
            {"trial_id": at, "step": step, **_intermediate(value)} for step, value in trial.intermediate_values.items()
        ]
    return Rows([_trial(trial) for trial in templates], details, texts.by_name)


def insert(
    connection: Connection, study_id: int, rows: Rows, known: Mapping[str, str], tries: list[list[int]]
) -> tuple[list[int], list[int]]:
    """Writes a group under its study's lock, unless an earlier try has done so.

    Args:
        connection: A connection whose transaction is the caller's.
        study_id: The study.
        rows: The group.
        known: Distributions that are known to go with the study's trials, as JSON by parameter.
        tries: The ids that the trials got in earlier tries, of which nobody knows what came of them; gets this one's too.

    Returns:
        The numbers and ids that the trials got.

    Raises:
        KeyError: If there is no such study.
        ValueError: If a distribution does not go with the one that the study's trials have.
    """
    locked = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id).with_for_update()
    if connection.execute(locked).one_or_none() is None:
        raise KeyError(models.NOT_FOUND_MSG)
    if (done := recorded(connection, study_id, rows, tries)) is not None:
        return done
    for name, text in rows.distributions.items():
        if known.get(name) != text:
            there = _distribution(connection, study_id, name)
            if there is not None:
                check_distribution_compatibility(json_to_distribution(there), json_to_distribution(text))
    # Numbers are counted, as Optuna counts them, and no trial is ever deleted but with its study.
    count = sa.select(sa.func.count(TRIALS.c.trial_id)).where(TRIALS.c.study_id == study_id).scalar_subquery()
    last = sa.select(sa.func.coalesce(sa.func.max(TRIALS.c.trial_id), -1)).scalar_subquery()
    first, before = connection.execute(sa.select(count, last)).one()
    numbers = list(range(first, first + len(rows.trials)))
    new = [{**row, "study_id": study_id, "number": n} for row, n in zip(rows.trials, numbers, strict=True)]
    connection.execute(sa.insert(TRIALS), new)
    # Not by RETURNING, which MySQL does not have.
    mine = sa.select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id, TRIALS.c.trial_id > before)
    ids = list(connection.execute(mine.order_by(TRIALS.c.number)).scalars())
    tries.append(ids)
    for table, details in rows.details.items():
        if details:
            connection.execute(sa.insert(table), [{**row, "trial_id": ids[row["trial_id"]]} for row in details])
    return numbers, ids


def recorded(
    connection: Connection, study_id: int, rows: Rows, tries: Sequence[list[int]]
) -> tuple[list[int], list[int]] | None:
    """What earlier tries of :func:`insert` came to: the trials' numbers and ids, or None if none was committed."""
    for ids in tries:
        numbers = _numbers_of(connection, study_id, ids, rows)
        if numbers is not None:
            return numbers, ids
    return None


def _numbers_of(connection: Connection, study_id: int, ids: Sequence[int], rows: Rows) -> list[int] | None:
    """The numbers of a group that an earlier try recorded; None if it did not.

    An id alone is no proof: of a transaction that was rolled back, some databases give it away again. So what trials hold
    from their beginning to their end is compared as well.
    """
    trial = TRIALS.c
    query = sa.select(trial.number, trial.datetime_start).where(trial.study_id == study_id, trial.trial_id.in_(ids))
    found = connection.execute(query.order_by(trial.number)).all()
    starts = [row["datetime_start"] for row in rows.trials]
    if len(found) < len(ids) or not all(
        start is None or is_at(connection, there.datetime_start, start)
        for start, there in zip(starts, found, strict=True)
    ):
        return None
    for table, names in ((PARAMS, ("param_name", "param_value")), (SYSTEM_ATTRS, ("key", "value_json"))):
        query = sa.select(table.c.trial_id, *(table.c[name] for name in names)).where(table.c.trial_id.in_(ids))
        there = {tuple(row) for row in connection.execute(query)}
        if not {(ids[row["trial_id"]], *(row[name] for name in names)) for row in rows.details[table]} <= there:
            return None
    return [row.number for row in found]


def is_at(connection: Connection, stored: datetime | None, time: datetime) -> bool:
    """Whether a time that a database holds is this one, as far as the database can tell."""
    return stored is not None and abs(stored - time) <= _PRECISION.get(connection.dialect.name, timedelta(0))


def _distribution(connection: Connection, study_id: int, name: str) -> str | None:
    query = sa.select(PARAMS.c.distribution_json).join(TRIALS, TRIALS.c.trial_id == PARAMS.c.trial_id)
    query = query.where(TRIALS.c.study_id == study_id, PARAMS.c.param_name == name).limit(1)
    return connection.execute(query).scalar()


class _Texts:
    """Distributions as JSON; the trials of a group share them, and one takes longer to write than its row."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}
        self.by_id: dict[int, str] = {}

    def of(self, name: str, distribution: BaseDistribution) -> str:
        text = self.by_id.get(id(distribution))
        if text is None:
            text = self.by_id[id(distribution)] = distribution_to_json(distribution)
        there = self.by_name.setdefault(name, text)
        if there != text:
            check_distribution_compatibility(json_to_distribution(there), distribution)
        return text


def value_rows(trial_id: int, values: Sequence[float]) -> list[Row]:
    """A trial's values as rows; infinite ones are told by their kind."""
    stored = [models.TrialValueModel.value_to_stored_repr(value) for value in values]
    return [
        {"trial_id": trial_id, "objective": at, "value": v, "value_type": kind} for at, (v, kind) in enumerate(stored)
    ]


def _trial(template: FrozenTrial) -> Row:
    # Optuna's own class turns local times into those it stores.
    model = models.TrialModel(
        state=template.state, datetime_start=template.datetime_start, datetime_complete=template.datetime_complete
    )
    return {
        "state": model.state,
        "datetime_start": model._datetime_start_utc,
        "datetime_complete": model._datetime_complete_utc,
    }


def _intermediate(value: float) -> Row:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}
