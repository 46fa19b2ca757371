"""The queue of a study in Optuna's own tables: each step one transaction under the study's row lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeVar

import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from optuna_aes.storage._insert import STUDIES, TRIALS, USER_ATTRS, VALUES, insert, recorded, rows_of
from optuna_aes.storage._messages import explained
from optuna_aes.storage._outage import LONGEST_PAUSE, outlast
from optuna_aes.storage._rdb import ensure_row_locks, retry_races
from optuna_aes.storage.bulk import KNOWN_SCHEMA, BulkStorage
from optuna_aes.storage.durable import outage_of
from optuna_aes.storage.queue import WORKER, Decision, Outcome, Running

T = TypeVar("T")

HEARTBEATS = models.TrialHeartbeatModel.__table__
STUDY_ATTRS = models.StudyUserAttributeModel.__table__


def knows_schema(storage: RDBStorage) -> bool:
    """Whether the database's tables are those that are written here."""
    if isinstance(storage, BulkStorage):
        return storage.knows_schema
    return storage.get_current_version() == KNOWN_SCHEMA


class SqlBackend:
    """See :class:`optuna_aes.storage.queue.Backend`.

    Args:
        storage: A storage whose schema is known.
        study_id: The study.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        ensure_row_locks(storage.engine)
        self.engine = storage.engine
        self.outage = outage_of(storage)
        self.interval = storage.heartbeat_interval or 0
        self.study_id = study_id
        # What is known of the study's distributions need not be asked for with every group.
        self.distributions: dict[int, dict[str, str]] = getattr(storage, "_distributions", {})

    def add(self, trials: Sequence[FrozenTrial], first: int | None, decision: Decision | None) -> dict[int, int] | None:
        """See the protocol."""
        rows, tries = rows_of(trials), list[list[int]]()

        def work(connection: Connection) -> dict[int, int] | None:
            if (done := recorded(connection, self.study_id, rows, tries)) is not None:
                return dict(zip(done[1], done[0], strict=True))
            count = sa.select(sa.func.count(TRIALS.c.trial_id)).where(TRIALS.c.study_id == self.study_id)
            if first is not None and connection.execute(count).scalar() != first:
                return None
            if decision is not None and not self._decide(connection, decision):
                return None
            if not trials:
                return {}
            numbers, ids = insert(connection, self.study_id, rows, self.distributions.get(self.study_id, {}), tries)
            running = [i for i, row in zip(ids, rows.trials, strict=True) if row["state"] == TrialState.RUNNING]
            self._start_beating(connection, running)
            return dict(zip(ids, numbers, strict=True))

        added = self._locked(f"lay out {len(trials)} trials", work)
        if added:
            self.distributions.setdefault(self.study_id, {}).update(rows.distributions)
        return added

    def claim(self, limit: int, mark: str) -> dict[int, int]:
        """See the protocol."""
        waiting = sa.select(TRIALS.c.trial_id, TRIALS.c.number).where(
            TRIALS.c.study_id == self.study_id, TRIALS.c.state == TrialState.WAITING
        )

        def work(connection: Connection) -> dict[int, int]:
            if (held := self._under(connection, mark)) is not None:  # by an earlier try, whose answer was lost
                return held
            # The rows too, as a stock worker takes a trial without the study's lock.
            rows = connection.execute(waiting.order_by(TRIALS.c.number).limit(limit).with_for_update()).all()
            found: dict[int, int] = {row.trial_id: row.number for row in rows}
            if found:
                self._change(connection, found, state=TrialState.RUNNING, datetime_start=_now())
                _set_attrs(connection, {trial_id: {WORKER: json.loads(mark)} for trial_id in found})
                self._start_beating(connection, list(found))
            return found

        if self._any_waiting(waiting):  # the common case is that nothing waits: no lock for it
            return self._locked("take a trial", work)
        return {}

    def finish(self, mark: str, outcomes: Mapping[int, Outcome]) -> set[int]:
        """See the protocol."""
        tries = 0

        def work(connection: Connection) -> set[int]:
            nonlocal tries
            tries += 1
            # Those that an earlier try ended, whose answer was lost, are under the name still.
            ended = self._mine(connection, mark, list(outcomes), ended=True) if tries > 1 else set()
            mine = self._mine(connection, mark, list(outcomes))
            for state in {outcomes[trial_id].state for trial_id in mine}:
                ids = [trial_id for trial_id in mine if outcomes[trial_id].state == state]
                self._change(connection, ids, state=state, datetime_complete=_now())
            values = [row for trial_id in mine for row in _values(trial_id, outcomes[trial_id].values or ())]
            if values:
                connection.execute(sa.insert(VALUES), values)
            _set_attrs(connection, {trial_id: outcomes[trial_id].attrs for trial_id in mine})
            return mine | ended

        return self._locked(f"finish {len(outcomes)} trials", work) if outcomes else set()

    def release(self, mark: str | None, attrs: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """See the protocol."""

        def work(connection: Connection) -> set[int]:
            mine = self._mine(connection, mark, list(attrs))
            if mine:
                self._change(connection, mine, state=TrialState.WAITING)
                marks = (USER_ATTRS.c.trial_id.in_(mine)) & (USER_ATTRS.c.key == WORKER)
                connection.execute(sa.delete(USER_ATTRS).where(marks))
                connection.execute(sa.delete(HEARTBEATS).where(HEARTBEATS.c.trial_id.in_(mine)))
                _set_attrs(connection, {trial_id: attrs[trial_id] for trial_id in mine})
            return mine

        return self._locked("give a trial back", work) if attrs else set()

    def holding(self, mark: str, ids: Sequence[int]) -> set[int]:
        """See the protocol."""
        return self._look("look at a trial", lambda connection: self._mine(connection, mark, ids))

    def running(self) -> list[Running]:
        """See the protocol."""
        source: Any = TRIALS.outerjoin(
            USER_ATTRS, (USER_ATTRS.c.trial_id == TRIALS.c.trial_id) & (USER_ATTRS.c.key == WORKER)
        ).outerjoin(HEARTBEATS, HEARTBEATS.c.trial_id == TRIALS.c.trial_id)
        columns = (TRIALS.c.trial_id, TRIALS.c.number, USER_ATTRS.c.value_json, HEARTBEATS.c.heartbeat)
        query = sa.select(*columns, sa.func.now().label("now")).select_from(source)
        query = query.where(TRIALS.c.study_id == self.study_id, TRIALS.c.state == TrialState.RUNNING)
        rows = self._look("look at the running trials", lambda connection: connection.execute(query).all())
        # While the database was away nobody could give a sign of life: they get the time to do so.
        just_back = self.outage.ended_within(self.interval + 2 * LONGEST_PAUSE)
        silent = [None if row.heartbeat is None else 0.0 if just_back else _silent(row) for row in rows]
        return [
            Running(row.trial_id, row.number, _named(row.value_json), seconds)
            for row, seconds in zip(rows, silent, strict=True)
        ]

    def beat(self, mark: str, ids: Sequence[int]) -> None:
        """See the protocol."""
        named = sa.select(USER_ATTRS.c.trial_id).where(
            USER_ATTRS.c.trial_id.in_(ids), USER_ATTRS.c.key == WORKER, USER_ATTRS.c.value_json == mark
        )
        change = sa.update(HEARTBEATS).where(HEARTBEATS.c.trial_id.in_(named)).values(heartbeat=sa.func.now())
        with self.engine.begin() as connection:
            connection.execute(change)

    def _locked(self, action: str, work: Callable[[Connection], T]) -> T:
        """Does the work in a transaction that no other of this queue runs next to.

        Done a second time, where nobody knows whether the first was committed, it finds nothing left to do.
        """
        lock = sa.select(STUDIES.c.study_id).where(STUDIES.c.study_id == self.study_id).with_for_update()

        def attempt() -> T:
            with self.engine.begin() as connection:
                connection.execute(lock)
                return work(connection)

        with explained(action, self.engine):
            return outlast(self.outage, lambda: retry_races(attempt))

    def _look(self, action: str, query: Callable[[Connection], T]) -> T:
        def attempt() -> T:
            with self.engine.connect() as connection:
                return query(connection)

        with explained(action, self.engine):
            return outlast(self.outage, attempt)

    def _any_waiting(self, waiting: sa.Select[Any]) -> bool:
        query = waiting.limit(1)
        return self._look("look for waiting trials", lambda connection: connection.execute(query).first()) is not None

    def _under(self, connection: Connection, mark: str) -> dict[int, int] | None:
        """The numbers by id of the trials that are running under a name; None if there are none."""
        named = (USER_ATTRS.c.trial_id == TRIALS.c.trial_id) & (USER_ATTRS.c.key == WORKER)
        query = sa.select(TRIALS.c.trial_id, TRIALS.c.number).join(USER_ATTRS, named)
        query = query.where(
            TRIALS.c.study_id == self.study_id, TRIALS.c.state == TrialState.RUNNING, USER_ATTRS.c.value_json == mark
        )
        rows = connection.execute(query.order_by(TRIALS.c.number)).all()
        return {row.trial_id: row.number for row in rows} or None

    def _mine(self, connection: Connection, mark: str | None, ids: Sequence[int], *, ended: bool = False) -> set[int]:
        """Those of the trials that are running, or have ended, under the name."""
        source = TRIALS.outerjoin(
            USER_ATTRS, (USER_ATTRS.c.trial_id == TRIALS.c.trial_id) & (USER_ATTRS.c.key == WORKER)
        )
        query = sa.select(TRIALS.c.trial_id, USER_ATTRS.c.value_json).select_from(source)
        states = [state for state in TrialState if state.is_finished()] if ended else [TrialState.RUNNING]
        query = query.where(TRIALS.c.trial_id.in_(ids), TRIALS.c.state.in_(states))
        return {row.trial_id for row in connection.execute(query) if _named(row.value_json) == mark}

    def _change(self, connection: Connection, ids: Any, **values: Any) -> None:
        connection.execute(sa.update(TRIALS).where(TRIALS.c.trial_id.in_(list(ids))).values(**values))

    def _start_beating(self, connection: Connection, ids: Sequence[int]) -> None:
        if ids:
            connection.execute(sa.delete(HEARTBEATS).where(HEARTBEATS.c.trial_id.in_(ids)))
            connection.execute(sa.insert(HEARTBEATS), [{"trial_id": trial_id} for trial_id in ids])

    def _decide(self, connection: Connection, decision: Decision) -> bool:
        where = (STUDY_ATTRS.c.study_id == self.study_id) & (STUDY_ATTRS.c.key == decision.key)
        text = connection.execute(sa.select(STUDY_ATTRS.c.value_json).where(where)).scalar()
        if (None if text is None else json.loads(text)) != decision.old:
            return False
        connection.execute(sa.delete(STUDY_ATTRS).where(where))
        row = {"study_id": self.study_id, "key": decision.key, "value_json": json.dumps(decision.new)}
        connection.execute(sa.insert(STUDY_ATTRS), row)
        return True


def _named(text: str | None) -> str | None:
    """A mark; one that was taken off through Optuna, which cannot delete attributes, is none."""
    return None if text == "null" else text


def _set_attrs(connection: Connection, attrs: Mapping[int, Mapping[str, Any]]) -> None:
    """Sets user attributes of trials."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, given in attrs.items()
        for key, value in given.items()
    ]
    if rows:
        keys = {row["key"] for row in rows}
        old = (USER_ATTRS.c.trial_id.in_({row["trial_id"] for row in rows})) & (USER_ATTRS.c.key.in_(keys))
        there = connection.execute(sa.select(USER_ATTRS.c.trial_id, USER_ATTRS.c.key).where(old)).all()
        wanted = {(row["trial_id"], row["key"]) for row in rows}
        for trial_id, key in wanted & {(t, k) for t, k in there}:
            connection.execute(sa.delete(USER_ATTRS).where(USER_ATTRS.c.trial_id == trial_id, USER_ATTRS.c.key == key))
        connection.execute(sa.insert(USER_ATTRS), rows)


def _values(trial_id: int, values: Sequence[float]) -> list[dict[str, Any]]:
    rows = []
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        rows.append({"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind})
    return rows


def _silent(row: Any) -> float | None:
    if row.heartbeat is None:
        return None
    # Both in the time zone of the connection, as Optuna compares them; PostgreSQL names it in one of the two.
    return float((row.now.replace(tzinfo=None) - row.heartbeat).total_seconds())


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)  # as Optuna stores times
