"""Optuna's relational storage, which waits for its database where Optuna's own would end the worker."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import RDBStorage
from optuna.storages._base import DEFAULT_STUDY_NAME_PREFIX
from optuna.study import StudyDirection

from optuna_aes.storage._outage import LONGEST_PAUSE, PATIENCE, Outage, outlast, watch

P = ParamSpec("P")
T = TypeVar("T")


def _again(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[DurableStorage, P], T]:
    def call(self: DurableStorage, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return outlast(self.outage, lambda: method(self, *args, **kwargs))

    functools.update_wrapper(call, method)
    return call


class DurableStorage(RDBStorage):
    """An RDBStorage whose calls outlast a database that goes away and comes back, as at a restart or a fail-over.

    Every call here is one transaction that can be done twice: it reads, or sets what it would set again. What cannot,
    making trials and changing their state, is in :class:`optuna_aes.storage.bulk.BulkStorage`.

    Args:
        args: As RDBStorage takes them.
        patience: Seconds that a call waits for the database before it fails.
        kwargs: As RDBStorage takes them.
    """

    def __init__(self, *args: Any, patience: float = PATIENCE, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        watch(self.engine)
        self.outage = Outage(self.engine, patience)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        watch(self.engine)

    set_study_user_attr = _again(RDBStorage.set_study_user_attr)
    set_study_system_attr = _again(RDBStorage.set_study_system_attr)
    get_study_id_from_name = _again(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _again(RDBStorage.get_study_name_from_id)
    get_study_directions = _again(RDBStorage.get_study_directions)
    get_study_user_attrs = _again(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _again(RDBStorage.get_study_system_attrs)
    get_all_studies = _again(RDBStorage.get_all_studies)
    get_trial = _again(RDBStorage.get_trial)
    get_trial_param = _again(RDBStorage.get_trial_param)
    get_trial_user_attrs = _again(RDBStorage.get_trial_user_attrs)
    get_trial_system_attrs = _again(RDBStorage.get_trial_system_attrs)
    get_trial_id_from_study_id_trial_number = _again(RDBStorage.get_trial_id_from_study_id_trial_number)
    set_trial_user_attr = _again(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _again(RDBStorage.set_trial_system_attr)
    set_trial_intermediate_value = _again(RDBStorage.set_trial_intermediate_value)
    record_heartbeat = _again(RDBStorage.record_heartbeat)
    # What Optuna's cache calls in place of the public ones. A parameter that is there already is left as it is.
    _get_trials = _again(RDBStorage._get_trials)
    _get_best_trial_id = _again(RDBStorage._get_best_trial_id)
    _set_trial_param = _again(RDBStorage._set_trial_param)
    _find_stale = _again(RDBStorage._get_stale_trial_ids)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Creates a study, as Optuna does."""
        name = DEFAULT_STUDY_NAME_PREFIX + str(uuid.uuid4()) if study_name is None else study_name
        tries = 0

        def attempt() -> int:
            nonlocal tries
            tries += 1
            try:
                return super(DurableStorage, self).create_new_study(directions, name)
            except DuplicatedStudyError:
                # After a commit without an answer: of the same directions and untouched, it is as good as ours.
                study_id = self.get_study_id_from_name(name)
                same = self.get_study_directions(study_id) == list(directions)
                if tries == 1 or not same or self._get_trials(study_id, None, set(), -1):
                    raise
                return study_id

        return outlast(self.outage, attempt)

    def delete_study(self, study_id: int) -> None:
        """Deletes a study, as Optuna does."""
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            try:
                super(DurableStorage, self).delete_study(study_id)
            except KeyError:
                if tries == 1:
                    raise

        outlast(self.outage, attempt)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        # Workers that could not tell of themselves get the time to do so, before they are taken for dead.
        if self.outage.ended_within((self.heartbeat_interval or 0) + 2 * LONGEST_PAUSE):
            return []
        return self._find_stale(study_id)


def outage_of(storage: RDBStorage) -> Outage:
    """What is known of the absence of a storage's database, of whatever kind the storage is."""
    return storage.outage if isinstance(storage, DurableStorage) else Outage(storage.engine, PATIENCE)
