"""A trial's change of state as one transaction that knows whether it was done before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import sqlalchemy as sa
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._rdb import models
from optuna.trial import TrialState
from sqlalchemy.engine import Connection

from optuna_aes.storage._insert import TRIALS, VALUES, is_at, value_rows


def change_state(
    connection: Connection,
    trial_id: int,
    state: TrialState,
    values: Sequence[float] | None,
    *,
    now: datetime,
    again: bool,
) -> bool:
    """Does what ``RDBStorage.set_trial_state_values`` does, under the trial's lock.

    Args:
        connection: A connection whose transaction is the caller's.
        trial_id: The trial.
        state: Its new state.
        values: Its values, if it has any.
        now: When, as it is stored, in UTC. It tells a change of this call from one of another worker.
        again: Whether an earlier attempt with the same time may have been done.

    Returns:
        Whether this call changed it; False if the trial was to be claimed and another worker had done so.

    Raises:
        KeyError: If there is no such trial.
        UpdateFinishedTrialError: If it is finished, by another call.
    """
    trial = TRIALS.c
    query = sa.select(trial.state, trial.datetime_start, trial.datetime_complete, trial.number)
    row = connection.execute(query.where(trial.trial_id == trial_id).with_for_update()).one_or_none()
    if row is None:
        raise KeyError(models.NOT_FOUND_MSG)
    stamp = row.datetime_complete if state.is_finished() else row.datetime_start
    if again and row.state == state and is_at(connection, stamp, now):
        return True
    if row.state.is_finished():
        raise UpdateFinishedTrialError(f"Trial#{row.number} has already finished and can not be updated.")
    if state == TrialState.RUNNING and row.state != TrialState.WAITING:
        return False
    if values is not None:
        connection.execute(sa.delete(VALUES).where(VALUES.c.trial_id == trial_id))
        connection.execute(sa.insert(VALUES), value_rows(trial_id, values))
    changes: dict[str, object] = {"state": state}
    if state == TrialState.RUNNING:
        changes["datetime_start"] = now
    if state.is_finished():
        changes["datetime_complete"] = now
    connection.execute(sa.update(TRIALS).where(trial.trial_id == trial_id).values(changes))
    return True


def utc_now() -> datetime:
    """The time as Optuna's tables hold it."""
    return datetime.now(timezone.utc).replace(tzinfo=None)
