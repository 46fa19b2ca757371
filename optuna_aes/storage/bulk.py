"""Optuna's relational storage, with trials recorded in groups and read as arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import Connection

from optuna_aes.errors import InputError
from optuna_aes.samplers.trials import TrialRows
from optuna_aes.storage._messages import explained
from optuna_aes.storage._outage import outlast
from optuna_aes.storage._rdb import ensure_row_locks, rdb_of, retry_races
from optuna_aes.storage.durable import DurableStorage

if TYPE_CHECKING:
    from optuna import Study

T = TypeVar("T")

# Optuna's tables as _insert.py and _select.py know them. Optuna changes this name whenever it changes a table.
KNOWN_SCHEMA = "v3.2.0.a"


class BulkStorage(DurableStorage):
    """An RDBStorage that also records a group of trials in one transaction, and reads a study as arrays.

    Stock Optuna takes several statements for every parameter of a trial. Here a group takes one per table, and leaves the
    same rows: every Optuna tool reads them, and stock workers may write to the same study meanwhile. Where the database has
    a schema that is not known here, all of it falls back to Optuna's own calls.

    While the database is away, all calls wait for it; what was done is not done again, even where its answer was lost.

    Args:
        args: As RDBStorage takes them.
        kwargs: The same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Distributions that are known to go with each study's trials, as JSON by parameter: none of them is asked for twice.
        self._distributions: dict[int, dict[str, str]] = {}
        super().__init__(*args, **kwargs)

    @cached_property
    def knows_schema(self) -> bool:
        """Whether the database's tables are those that are written and read here without Optuna."""
        return outlast(self.outage, self.get_current_version) == KNOWN_SCHEMA

    @cached_property
    def reads_trials(self) -> bool:
        """Whether :meth:`read_trials` can be asked: the schema is known, and the database can do what it takes."""
        if not self.knows_schema:
            return False
        from optuna_aes.storage._select import can_select

        return can_select(self.engine.dialect.name)

    def create_new_trials(self, study_id: int, template_trials: Sequence[FrozenTrial]) -> list[int]:
        """Records trials that are known already: all of them, or none where that fails.

        Args:
            study_id: The study.
            template_trials: What to record, of any state; numbers are not looked at.

        Returns:
            The numbers that they got. They follow one another; only where the schema is not known, and trials are
            recorded one by one, may others come in between.

        Raises:
            KeyError: If there is no such study.
            ValueError: If a parameter's distribution does not go with that of the study's trials.
            StorageError: If the database cannot record them.
        """
        if not self.knows_schema:
            return _one_by_one(self, study_id, template_trials)
        return self._record(study_id, template_trials)[0] if template_trials else []

    def _record(self, study_id: int, templates: Sequence[FrozenTrial]) -> tuple[list[int], list[int]]:
        """The numbers and ids of trials that are recorded together."""
        from optuna_aes.storage._insert import insert, rows_of

        rows, tries = rows_of(templates), list[list[int]]()

        def attempt() -> tuple[list[int], list[int]]:
            with self.engine.begin() as connection:
                return insert(connection, study_id, rows, self._distributions.get(study_id, {}), tries)

        ensure_row_locks(self.engine)
        with explained(f"record {len(templates)} trials", self.engine):
            # A deadlock wrote nothing. What a lost connection wrote, the next try finds.
            found = outlast(self.outage, lambda: retry_races(attempt))
        self._distributions.setdefault(study_id, {}).update(rows.distributions)
        return found

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        # Optuna's own tries again after any error of the database, which makes two trials of one whose answer was lost.
        if not self.knows_schema:
            return super()._create_new_trial(study_id, template_trial)
        # Without a template it is one that begins now.
        trial = create_trial(state=TrialState.RUNNING) if template_trial is None else copy.deepcopy(template_trial)
        (trial.number,), (trial._trial_id,) = self._record(study_id, [trial])
        return trial

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Changes a trial's state as Optuna does; its answer is right even after a commit whose answer was lost."""
        if not self.knows_schema:
            return super().set_trial_state_values(trial_id, state, values)
        from optuna_aes.storage._state import change_state, utc_now

        now, again = utc_now(), False

        def attempt() -> bool:
            nonlocal again
            before, again = again, True
            with self.engine.begin() as connection:
                return change_state(connection, trial_id, state, values, now=now, again=before)

        ensure_row_locks(self.engine)
        with explained(f"set trial {trial_id} to {state.name}", self.engine):
            return outlast(self.outage, lambda: retry_races(attempt))

    def read_trials(
        self, study_id: int, names: Sequence[str], *, objectives: int, after: int = -1, unfinished: Sequence[int] = ()
    ) -> TrialRows:
        """Reads some parameters and the values of a study's trials by one query, where :attr:`reads_trials`.

        Args:
            study_id: The study.
            names: The parameters. Whole numbers and choices come as they are; of others 15 digits are sure.
            objectives: How many values a trial has.
            after: Only trials with a higher id, and
            unfinished: those with these ids, which are to be read again.

        Returns:
            The trials, in no order.

        Raises:
            StorageError: If the database cannot be read.
        """
        from optuna_aes.storage._select import Selection, select

        selection = Selection(study_id, tuple(names), objectives, after, tuple(unfinished))
        return self._read(lambda connection: select(connection, selection))

    def read_user_attr(self, study_id: int, key: str) -> dict[int, Any]:
        """Reads one user attribute of all trials that have it by one query, where :attr:`knows_schema`.

        Args:
            study_id: The study.
            key: The attribute.

        Returns:
            Its values by number of the trial.

        Raises:
            StorageError: If the database cannot be read.
        """
        from optuna_aes.storage._select import user_attr

        return self._read(lambda connection: user_attr(connection, study_id, key))

    def _read(self, query: Callable[[Connection], T]) -> T:
        def attempt() -> T:
            with self.engine.connect() as connection:
                return query(connection)

        with explained("read the study's trials", self.engine):
            return outlast(self.outage, attempt)

    def delete_study(self, study_id: int) -> None:
        """Deletes a study, as Optuna does."""
        self._distributions.pop(study_id, None)  # SQLite gives the id to another one
        super().delete_study(study_id)


def add_trials(study: Study, trials: Sequence[FrozenTrial]) -> list[int]:
    """Records trials as ``study.add_trials`` does, in one transaction where the storage is one that we opened.

    Args:
        study: The study.
        trials: Trials that are known already.

    Returns:
        Their numbers.

    Raises:
        InputError: If a trial does not go with the study; none is recorded then.
        StorageError: If the database cannot record them.
    """
    for trial in trials:
        try:
            trial._validate()
        except ValueError as error:
            raise InputError(f"a trial cannot be recorded: {error}") from None
        if trial.values is not None and len(trial.values) != len(study.directions):
            raise InputError(
                f"a trial has {len(trial.values)} values and the study {len(study.directions)} objectives: give each a value"
            )
    rdb = rdb_of(study._storage)
    if isinstance(rdb, BulkStorage):
        return rdb.create_new_trials(study._study_id, trials)
    return _one_by_one(study._storage, study._study_id, trials)


def read_user_attr(study: Study, key: str) -> dict[int, Any]:
    """Reads one user attribute of all trials that have it, by one query where the storage is one that we opened.

    Args:
        study: The study.
        key: The attribute.

    Returns:
        Its values by number of the trial.

    Raises:
        StorageError: If the database cannot be read.
    """
    rdb = rdb_of(study._storage)
    if isinstance(rdb, BulkStorage) and rdb.knows_schema:
        return rdb.read_user_attr(study._study_id, key)
    return {
        trial.number: trial.user_attrs[key] for trial in study.get_trials(deepcopy=False) if key in trial.user_attrs
    }


def _one_by_one(storage: BaseStorage, study_id: int, trials: Sequence[FrozenTrial]) -> list[int]:
    """What any storage can do."""
    ids = [storage.create_new_trial(study_id, template_trial=trial) for trial in trials]
    return [storage.get_trial_number_from_id(trial_id) for trial_id in ids]
