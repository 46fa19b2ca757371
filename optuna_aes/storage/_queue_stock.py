"""The queue of a study in any storage of Optuna's, such as its gRPC proxy, by its public calls alone.

Optuna starts a waiting trial for one worker only, and ends none twice. All else here is a look before a write, with a moment
between them in which another worker may write too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.storage.queue import REASON, WORKER, Decision, Outcome, Running


class StockBackend:
    """See :class:`optuna_aes.storage.queue.Backend`. There are no signs of life: Optuna gives them to no storage but its RDB.

    Args:
        storage: The storage.
        study_id: The study.
    """

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    def add(self, trials: Sequence[FrozenTrial], first: int | None, decision: Decision | None) -> dict[int, int] | None:
        """See the protocol."""
        storage, study = self.storage, self.study_id
        if first is not None and storage.get_n_trials(study) != first:
            return None
        if decision is not None:
            if storage.get_study_user_attrs(study).get(decision.key) != decision.old:
                return None
            storage.set_study_user_attr(study, decision.key, decision.new)
        added: dict[int, int] = {}
        for trial in trials:
            # Waiting ones are held until it is known that nobody else has added the same.
            state, trial.state = trial.state, trial.state if trial.state.is_finished() else TrialState.RUNNING
            trial_id = storage.create_new_trial(study, template_trial=trial)
            trial.state = state
            added[trial_id] = storage.get_trial_number_from_id(trial_id)
        if first is not None and list(added.values()) != list(range(first, first + len(added))):
            for trial_id, trial in zip(added, trials, strict=True):
                if not trial.state.is_finished():
                    storage.set_trial_user_attr(trial_id, REASON, "another worker came first")
                    storage.set_trial_state_values(trial_id, TrialState.FAIL)
            return None
        for trial_id, trial in zip(added, trials, strict=True):
            if trial.state == TrialState.WAITING:
                storage.set_trial_state_values(trial_id, TrialState.WAITING)
        return added

    def claim(self, limit: int, mark: str) -> dict[int, int]:
        """See the protocol."""
        claimed: dict[int, int] = {}
        for trial in self.storage.get_all_trials(self.study_id, deepcopy=False, states=(TrialState.WAITING,)):
            if len(claimed) < limit and self._to(trial._trial_id, TrialState.RUNNING):
                self.storage.set_trial_user_attr(trial._trial_id, WORKER, json.loads(mark))
                claimed[trial._trial_id] = trial.number
        return claimed

    def finish(self, mark: str, outcomes: Mapping[int, Outcome]) -> set[int]:
        """See the protocol."""
        mine = self.holding(mark, list(outcomes))
        for trial_id in mine:
            self._set_attrs(trial_id, outcomes[trial_id].attrs)
        return {i for i in mine if self._to(i, outcomes[i].state, outcomes[i].values)}

    def release(self, mark: str | None, attrs: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """See the protocol."""
        mine = self.holding(mark, list(attrs))
        for trial_id in mine:
            self._set_attrs(trial_id, {**attrs[trial_id], WORKER: None})  # Optuna deletes no attribute
        return {trial_id for trial_id in mine if self._to(trial_id, TrialState.WAITING)}

    def holding(self, mark: str | None, ids: Sequence[int]) -> set[int]:
        """See the protocol."""
        trials = {trial_id: self.storage.get_trial(trial_id) for trial_id in ids}
        return {i for i, t in trials.items() if t.state == TrialState.RUNNING and _mark(t) == mark}

    def running(self) -> list[Running]:
        """See the protocol."""
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False, states=(TrialState.RUNNING,))
        return [Running(t._trial_id, t.number, _mark(t), None) for t in trials]

    def beat(self, mark: str, ids: Sequence[int]) -> None:
        """See the protocol."""

    def _to(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        try:
            return self.storage.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            return False

    def _set_attrs(self, trial_id: int, attrs: Mapping[str, Any]) -> None:
        for key, value in attrs.items():
            self.storage.set_trial_user_attr(trial_id, key, value)


def _mark(trial: FrozenTrial) -> str | None:
    worker = trial.user_attrs.get(WORKER)
    return None if worker is None else json.dumps(worker)
