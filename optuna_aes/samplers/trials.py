"""A study's trials as arrays by trial number, kept up to date by reading only what is new."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.space import EmbeddingSpace

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

ABSENT = -1  # in place of a state: no trial of that number was read

UNFINISHED = (TrialState.RUNNING.value, TrialState.WAITING.value)


@dataclass(frozen=True)
class TrialRows:
    """Trials as a storage gave them.

    Args:
        total: How many trials the study has.
        ids: Their ids in the storage, int64 of shape ``(n,)``.
        numbers: Their numbers in the study.
        states: Values of :class:`optuna.trial.TrialState`.
        params: Some parameters, shape ``(n, parameters)``; NaN where a trial has none, or one that is no number.
        values: Objective values, shape ``(n, objectives)``; NaN where a trial has none.
    """

    total: int
    ids: Ints
    numbers: Ints
    states: Ints
    params: Floats
    values: Floats


@runtime_checkable
class ReadsTrials(Protocol):
    """A storage that reads trials as arrays, as :class:`optuna_aes.storage.BulkStorage` does."""

    @property
    def reads_trials(self) -> bool:
        """Whether it can, of the database that it has."""

    def read_trials(
        self, study_id: int, names: Sequence[str], *, objectives: int, after: int = -1, unfinished: Sequence[int] = ()
    ) -> TrialRows:
        """Reads the trials with an id above ``after``, and the unfinished ones again."""


def rows_of_trials(
    storage: BaseStorage,
    study_id: int,
    names: Sequence[str],
    *,
    objectives: int,
    after: int = -1,
    unfinished: Sequence[int] = (),
) -> TrialRows:
    """What :meth:`ReadsTrials.read_trials` gives, from Optuna's own objects: for storages that read nothing else."""
    trials, again = storage.get_all_trials(study_id, deepcopy=False), set(unfinished)
    fresh = [t for t in trials if t._trial_id > after or t._trial_id in again]
    missing = [math.nan] * objectives
    return TrialRows(
        total=len(trials),
        ids=np.array([t._trial_id for t in fresh], dtype=np.int64),
        numbers=np.array([t.number for t in fresh], dtype=np.int64),
        states=np.array([t.state.value for t in fresh], dtype=np.int64),
        params=_matrix([_params(t, names) for t in fresh], len(names)),
        values=_matrix([t.values or missing for t in fresh], objectives),
    )


def as_number(value: Any) -> float:
    """A parameter's value, or NaN if it is no number."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _params(trial: FrozenTrial, names: Sequence[str]) -> list[float]:
    return [as_number(trial.params.get(name)) for name in names]


def _matrix(rows: list[list[float]], columns: int) -> Floats:
    return np.array(rows, dtype=np.float64).reshape(len(rows), columns)


@dataclass(frozen=True)
class Trials:
    """The sizes and scores of a study's trials; position is number. Nothing in it ever changes.

    Args:
        version: Another one whenever anything was read.
        states: Values of :class:`optuna.trial.TrialState`, or ``ABSENT``, int64 of shape ``(trials,)``.
        choices: Positions of the sizes among the candidates, int64 of shape ``(trials, blocks)``; -1 for what is none.
        values: Objective values, shape ``(trials, objectives)``; NaN where a trial has none.
    """

    version: int
    states: Ints
    choices: Ints
    values: Floats

    def __len__(self) -> int:
        """The number that the study's next trial will have."""
        return len(self.states)

    @cached_property
    def complete(self) -> Mask:
        """Which trials ended with values."""
        return np.asarray(self.states == TrialState.COMPLETE.value)

    @cached_property
    def has_sizes(self) -> Mask:
        """Which trials have a candidate for every block, whatever came of them."""
        return np.asarray((self.choices >= 0).all(1))

    def count(self, state: TrialState) -> int:
        """How many trials are in a state."""
        return int((self.states == state.value).sum())


def read_trials(study: Study, space: EmbeddingSpace) -> Trials:
    """The trials of a study as they are now. All who ask for the same study and space in a process share what was read."""
    # By storage and not by study: a pruner such as Hyperband wraps the study anew for every trial, and Optuna wraps the
    # storage anew for every study.
    storage = backend_of(study._storage)
    with _TABLES_LOCK:
        tables = _TABLES.setdefault(storage, {})
        table = tables.setdefault((study._study_id, space.blocks, space.candidates), _Table(space))
    return table.update(study)


def backend_of(storage: BaseStorage) -> BaseStorage:
    """The storage that a study was opened with: Optuna wraps some in a cache."""
    backend = getattr(storage, "_backend", None)
    return backend if isinstance(backend, BaseStorage) else storage


class _Table:
    """What was read of one study, and how far."""

    def __init__(self, space: EmbeddingSpace) -> None:
        self.names = [b.parameter for b in space.blocks]
        self.candidates = np.array(space.candidates, dtype=np.float64)
        self.lock = threading.Lock()
        self.version = 0
        self.forget(0)

    def forget(self, objectives: int) -> None:
        self.version += 1
        self.states = np.zeros(0, dtype=np.int64)
        self.choices = np.zeros((0, len(self.names)), dtype=np.int64)
        self.values = np.zeros((0, objectives))
        self.known = 0
        self.last = -1
        self.unfinished: set[int] = set()

    def update(self, study: Study) -> Trials:
        with self.lock:
            objectives = len(study.directions)
            if self.values.shape[1] != objectives:
                self.forget(objectives)
            rows = self.read(study)
            if self.known + int((rows.ids > self.last).sum()) != rows.total:
                # A deleted study's id was given to another one: nothing that is known is of use.
                self.forget(objectives)
                rows = self.read(study)
            if len(rows.ids):
                self.absorb(rows)
            return Trials(self.version, self.states, self.choices, self.values)

    def read(self, study: Study) -> TrialRows:
        backend, since = backend_of(study._storage), {"after": self.last, "unfinished": sorted(self.unfinished)}
        wanted: dict[str, Any] = {"objectives": self.values.shape[1], **since}
        if isinstance(backend, ReadsTrials) and backend.reads_trials:
            return backend.read_trials(study._study_id, self.names, **wanted)
        return rows_of_trials(study._storage, study._study_id, self.names, **wanted)

    def absorb(self, rows: TrialRows) -> None:
        at = np.searchsorted(self.candidates, rows.params).clip(max=len(self.candidates) - 1)
        choices = np.where(self.candidates[at] == rows.params, at, -1)
        length = max(len(self.states), int(rows.numbers.max()) + 1)
        self.states = _with_rows(self.states, length, rows.numbers, rows.states, fill=ABSENT)
        self.choices = _with_rows(self.choices, length, rows.numbers, choices, fill=-1)
        self.values = _with_rows(self.values, length, rows.numbers, rows.values, fill=math.nan)
        self.unfinished -= set(rows.ids.tolist())
        self.unfinished |= set(rows.ids[np.isin(rows.states, UNFINISHED)].tolist())
        self.known += int((rows.ids > self.last).sum())
        self.last = max(self.last, int(rows.ids.max()))
        self.version += 1


def _with_rows(
    array: npt.NDArray[Any], length: int, at: Ints, rows: npt.NDArray[Any], *, fill: float
) -> npt.NDArray[Any]:
    """A longer copy with some rows replaced: whoever holds the old one, in another thread too, keeps what they had."""
    longer = np.full((length, *array.shape[1:]), fill, dtype=array.dtype)
    longer[: len(array)] = array
    longer[at] = rows
    return longer


_TABLES: weakref.WeakKeyDictionary[BaseStorage, dict[tuple[Any, ...], _Table]] = weakref.WeakKeyDictionary()
_TABLES_LOCK = threading.Lock()
