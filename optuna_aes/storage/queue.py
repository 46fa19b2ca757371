"""A study as a queue of work: every trial is laid out once, held by one worker at a time, and finished once.

A worker takes WAITING trials, which makes them RUNNING under its name, and gives signs of life for them. It finishes them,
or gives them back; what a dead worker held is given back by whoever looks next. Whatever a worker does to a trial counts
only while the trial is still under its name: one that was slow and declared dead finds that out, and changes nothing.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.errors import AesError
from optuna_aes.storage._rdb import rdb_of
from optuna_aes.storage.workers import died_here, worker_identity

WORKER = "worker"  # user attribute of a running trial: who holds it
WORK = "aes:work"  # user attribute of a trial that was laid out for our workers
DEATHS = "aes:deaths"  # user attribute: how many workers it has outlived
REASON = "aes:reason"  # user attribute of a failed trial

MOST_DEATHS = 10  # a trial that so many workers died over may be what kills them
NAMELESS = 20.0  # seconds until a running trial of ours without a name is given back; it takes milliseconds to write


class LostTrialError(AesError):
    """The trial is another worker's by now: this one was silent for too long, and was declared dead."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ends: its values, or the state it ends in without, and user attributes."""

    values: Sequence[float] | None = None
    state: TrialState = TrialState.COMPLETE
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """A user attribute of a study that is set together with new trials, if it still is what it was."""

    key: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Running:
    """A running trial.

    Args:
        trial_id: Its id in the storage.
        number: Its number in the study.
        mark: Who holds it, as JSON; None if nobody has put a name there.
        silent: Seconds since the last sign of life, by the database's clock; None if there never was any.
    """

    trial_id: int
    number: int
    mark: str | None
    silent: float | None


class Backend(Protocol):
    """What a storage must do for a queue. Each call is atomic where the storage allows it."""

    def add(self, trials: Sequence[FrozenTrial], first: int | None, decision: Decision | None) -> dict[int, int] | None:
        """Adds trials if the study has ``first`` trials and the decision is open; numbers by id, or None if not."""

    def claim(self, limit: int, mark: str) -> dict[int, int]:
        """Makes waiting trials, those of lowest number, running under a name; numbers by id."""

    def finish(self, mark: str, outcomes: Mapping[int, Outcome]) -> set[int]:
        """Ends those trials that are still under the name; their ids."""

    def release(self, mark: str | None, attrs: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Makes those that are still under the name waiting again, with user attributes; their ids."""

    def holding(self, mark: str, ids: Sequence[int]) -> set[int]:
        """Those that are still running under the name."""

    def running(self) -> list[Running]:
        """All running trials of the study."""

    def beat(self, mark: str, ids: Sequence[int]) -> None:
        """Records a sign of life of those that are under the name."""


class WorkQueue:
    """The queue of one study.

    Args:
        study: The study, in any storage. In a relational database of Optuna's known schema every step is one transaction
            under the study's row lock; elsewhere only Optuna's own guarantee holds: no trial is started or ended twice.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        self.backend = _backend(study)
        rdb = rdb_of(study._storage)
        self.interval = None if rdb is None else rdb.heartbeat_interval
        self.grace = None if self.interval is None or rdb is None else rdb.grace_period or 2 * self.interval
        self._nameless: dict[int, float] = {}

    def add(self, trials: Sequence[FrozenTrial], *, first: int | None = None, decision: Decision | None = None) -> bool:
        """Adds trials, all or none.

        Args:
            trials: What to add.
            first: How many trials the study must have: nothing is added where another worker came first.
            decision: What is decided with it.

        Returns:
            Whether they were added.
        """
        return self.backend.add(trials, first, decision) is not None

    def hold(self, trials: Sequence[FrozenTrial], *, first: int) -> Hold | None:
        """Adds trials as :meth:`add` does; those that are running are this worker's from the start.

        Returns:
            What is held; None where another worker came first.
        """
        mark = _new_mark()
        named = [_named(t, mark) if t.state == TrialState.RUNNING else t for t in trials]
        added = self.backend.add(named, first, None)
        if added is None:
            return None
        running = [t.state == TrialState.RUNNING for t in trials]
        return Hold(self, mark, {i: n for (i, n), mine in zip(added.items(), running, strict=True) if mine})

    def claim(self, limit: int = 1) -> Hold | None:
        """Takes waiting trials, at most ``limit``; None where there are none."""
        mark = _new_mark()
        claimed = self.backend.claim(limit, mark)
        return Hold(self, mark, claimed) if claimed else None

    def reclaim(self) -> list[int]:
        """Gives back what dead workers held: at once on this machine, else when its heartbeat has run out.

        Safe to call from many processes at once.

        Returns:
            The numbers of the trials that this call gave back, or failed for good as too many workers died over them.
        """
        running = self.backend.running()
        given = [trial.number for trial in running if self.is_dead(trial) and self._give_back(trial)]
        known = {trial.trial_id for trial in running}
        self._nameless = {key: since for key, since in self._nameless.items() if key in known}
        return given

    def is_dead(self, trial: Running) -> bool:
        """Whether the worker that holds a trial is dead: it died on this machine, or was silent for too long."""
        if trial.mark is not None:
            worker = json.loads(trial.mark)
            if isinstance(worker, dict) and died_here(worker):
                return True
        if trial.silent is not None:
            return self.grace is not None and trial.silent > self.grace
        if trial.mark is None and WORK in self.study._storage.get_trial(trial.trial_id).user_attrs:
            # Killed between Optuna's claim and its first sign of life. By one clock: machines' clocks differ.
            now = time.monotonic()
            return now - self._nameless.setdefault(trial.trial_id, now) > NAMELESS
        return False

    def _give_back(self, trial: Running) -> bool:
        deaths = 1 + int(self.study._storage.get_trial(trial.trial_id).user_attrs.get(DEATHS, 0))
        if deaths < MOST_DEATHS or trial.mark is None:
            return bool(self.backend.release(trial.mark, {trial.trial_id: {DEATHS: deaths}}))
        attrs = {DEATHS: deaths, REASON: f"{deaths} workers died over it"}
        return bool(self.backend.finish(trial.mark, {trial.trial_id: Outcome(None, TrialState.FAIL, attrs)}))


@dataclass(frozen=True)
class Hold:
    """Trials that this worker holds: numbers by id in the storage, in the order of their numbers."""

    queue: WorkQueue
    mark: str
    trials: dict[int, int]

    @property
    def numbers(self) -> list[int]:
        """Their numbers."""
        return list(self.trials.values())

    def check(self, numbers: Sequence[int] | None = None) -> None:
        """Makes sure that trials are still held.

        Args:
            numbers: Which; all by default, of which none may have ended then.

        Raises:
            LostTrialError: If one is not.
        """
        asked = [i for i, number in self.trials.items() if numbers is None or number in numbers]
        lost = set(asked) - self.queue.backend.holding(self.mark, asked)
        if lost:
            raise LostTrialError(
                f"trial {self.trials[min(lost)]} of {self.queue.study.study_name} was taken over by another worker"
            )

    def finish(self, outcomes: Mapping[int, Outcome]) -> list[int]:
        """Ends trials.

        Args:
            outcomes: By number.

        Returns:
            The numbers of those that were still held, and ended.
        """
        by_number = {number: trial_id for trial_id, number in self.trials.items()}
        ended = self.queue.backend.finish(self.mark, {by_number[n]: outcome for n, outcome in outcomes.items()})
        return [number for trial_id, number in self.trials.items() if trial_id in ended]

    def release(self, attrs: Mapping[int, Mapping[str, Any]] | None = None) -> None:
        """Gives trials that are still held back to the queue.

        Args:
            attrs: User attributes by number, for those to give back; all of them, with none, if not given.
        """
        wanted = {number: {} for number in self.numbers} if attrs is None else attrs
        by_id = {trial_id: wanted[number] for trial_id, number in self.trials.items() if number in wanted}
        self.queue.backend.release(self.mark, by_id)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Within the block a thread gives signs of life."""
        interval = self.queue.interval
        if interval is None:
            yield
            return
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(interval):
                with suppress(
                    Exception
                ):  # the database may be away; it comes back, or the trial goes to another worker
                    self.queue.backend.beat(self.mark, list(self.trials))

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=5)


def _new_mark() -> str:
    # Unique: a worker that lost a trial and took it again must not be believed when it finishes the first time's work.
    return json.dumps({**worker_identity(), "claim": uuid.uuid4().hex})


def _named(trial: FrozenTrial, mark: str) -> FrozenTrial:
    trial.user_attrs = {**trial.user_attrs, WORKER: json.loads(mark)}
    return trial


def _backend(study: optuna.Study) -> Backend:
    from optuna_aes.storage._queue_sql import SqlBackend, knows_schema
    from optuna_aes.storage._queue_stock import StockBackend

    rdb = rdb_of(study._storage)
    if rdb is not None and knows_schema(rdb):
        return SqlBackend(rdb, study._study_id)
    return StockBackend(study._storage, study._study_id)
