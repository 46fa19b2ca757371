"""A database that goes away and comes back: nothing is lost, nothing is done twice, nobody ends."""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optuna_aes.errors import StorageError
from optuna_aes.storage import BulkStorage, Outcome, RDBArtifactStore, WorkQueue, add_trials, open_storage
from optuna_aes.storage._outage import is_unavailable

BOTH = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
SIZES = {"size:a": CategoricalDistribution((0, 1, 2))}


@pytest.fixture
def opened(postgres_url: str) -> BulkStorage:
    storage = open_storage(postgres_url)
    assert isinstance(storage, BulkStorage)
    return storage


@pytest.fixture
def study(opened: BulkStorage) -> optuna.Study:
    return optuna.create_study(storage=opened, study_name="s", directions=BOTH)


class Losing:
    """Breaks the connection at the next commits, with the commit done or not: the worker cannot know which."""

    def __init__(self, engine: sa.Engine, *, done: bool, times: int = 1) -> None:
        self.engine, self.done, self.left = engine, done, times

    def __enter__(self) -> Losing:
        sa.event.listen(self.engine, "commit", self._lose)
        return self

    def __exit__(self, *_: object) -> None:
        sa.event.remove(self.engine, "commit", self._lose)
        assert self.left == 0

    def _lose(self, connection: sa.Connection) -> None:
        if self.left == 0:
            return
        self.left -= 1
        dbapi: Any = connection.connection.dbapi_connection
        if self.done:
            dbapi.commit()
        dbapi.close()


def losing(storage: BulkStorage) -> Iterator[Losing]:
    for done in (True, False):
        yield Losing(storage.engine, done=done)
    yield Losing(storage.engine, done=False, times=3)


def meanwhile(storage: BulkStorage, monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
    """Does something when the connection is lost, before there is another try."""
    wait = storage.outage.wait

    def first(error: BaseException, tries: int) -> None:
        if tries == 0:
            action()
        wait(error, tries)

    monkeypatch.setattr(storage.outage, "wait", first)


def some(count: int, **attrs: Any) -> list[optuna.trial.FrozenTrial]:
    return [
        create_trial(values=[0.5, float(i)], params={"size:a": 2}, distributions=SIZES, user_attrs=attrs)
        for i in range(count)
    ]


def test_a_group_is_recorded_once(opened: BulkStorage, study: optuna.Study) -> None:
    total = 0
    for lost in losing(opened):
        with lost:
            assert add_trials(study, some(3)) == [total, total + 1, total + 2]
        total += 3
        assert [t.number for t in study.get_trials()] == list(range(total))


def test_a_trial_is_made_once(opened: BulkStorage, study: optuna.Study) -> None:
    for number, lost in enumerate(losing(opened)):
        with lost:
            assert study.ask().number == number
        assert [t.state for t in study.get_trials()] == [TrialState.RUNNING] * (number + 1)


def test_a_trial_is_enqueued_once(opened: BulkStorage, study: optuna.Study) -> None:
    for number, lost in enumerate(losing(opened)):
        with lost:
            study.enqueue_trial({"size:a": 1}, user_attrs={"of": number})
        assert [t.user_attrs["of"] for t in study.get_trials()] == list(range(number + 1))


def test_a_group_of_another_worker_is_not_taken_for_ones_own(
    opened: BulkStorage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the commit was not done, and others record before one tries again."""
    other = optuna.load_study(study_name="s", storage=open_storage(str(opened.engine.url.render_as_string(False))))
    meanwhile(opened, monkeypatch, lambda: add_trials(other, some(2, of="other")))
    with Losing(opened.engine, done=False):
        assert add_trials(study, some(2, of="mine")) == [2, 3]
    assert [t.user_attrs["of"] for t in study.get_trials()] == ["other", "other", "mine", "mine"]


def test_ids_that_were_given_to_others_are_not_ones_own(opened: BulkStorage, study: optuna.Study) -> None:
    """After a crash some databases give an id of what was rolled back away again."""
    from optuna_aes.storage._insert import _numbers_of, rows_of

    add_trials(study, some(2))
    ids = [t._trial_id for t in study.get_trials()]
    odd = create_trial(values=[0.5, 0.0], params={"size:a": 1}, distributions=SIZES)
    waiting = [create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"size:a": n}}) for n in (0, 1)]
    with opened.engine.connect() as connection:

        def found(templates: list[Any], at: list[int], study_id: int = study._study_id) -> list[int] | None:
            return _numbers_of(connection, study_id, at, rows_of(templates))

        trials = study.get_trials()
        assert found(trials, ids) == [0, 1]
        assert found([trials[0], odd], ids) is None
        assert found(trials, [ids[0], ids[1] + 1]) is None
        assert found(trials, ids, study._study_id + 1) is None
        assert found(waiting, ids) is None
        assert found([create_trial(state=TrialState.RUNNING)] * 2, ids) is None


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED])
def test_a_trial_is_finished_once(opened: BulkStorage, study: optuna.Study, state: TrialState) -> None:
    values = [0.25, float("inf")] if state == TrialState.COMPLETE else None
    for lost in losing(opened):
        trial = study.ask()
        with lost:
            assert opened.set_trial_state_values(trial._trial_id, state, values)
        found = opened.get_trial(trial._trial_id)
        assert (found.state, found.values) == (state, values)
        assert found.duration is not None
        # What another worker did is still seen as such.
        with pytest.raises(UpdateFinishedTrialError):
            opened.set_trial_state_values(trial._trial_id, state, values)


def test_a_trial_is_claimed_by_one(opened: BulkStorage, study: optuna.Study) -> None:
    for lost in losing(opened):
        study.enqueue_trial({})
        trial = study.get_trials()[-1]
        with lost:
            assert opened.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        assert not opened.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        assert opened.get_trial(trial._trial_id).datetime_start is not None


def test_the_queue(opened: BulkStorage, study: optuna.Study) -> None:
    """Laid out, taken, ended and given back once, with the answer lost each time."""
    queue, total = WorkQueue(study), 0
    for lost in losing(opened):
        times = lost.left
        waiting = [create_trial(state=TrialState.WAITING, user_attrs={"aes:work": True}) for _ in range(3)]
        with lost:
            assert queue.add(waiting, first=total)
        lost.left = times
        with lost:
            hold = queue.claim(2)
        assert hold is not None
        assert hold.numbers == [total, total + 1]
        hold.check()
        lost.left = times
        with lost:
            assert hold.finish({total: Outcome([1.0, 2.0])}) == [total]
        assert hold.finish({total: Outcome([1.0, 2.0])}) == []
        lost.left = times
        with lost:
            hold.release({total + 1: {"a": 1}})
        states = [t.state.name for t in study.get_trials()[total:]]
        assert states == ["COMPLETE", "WAITING", "WAITING"]
        lost.left = times
        with lost:
            mine = queue.hold([create_trial(state=TrialState.RUNNING), *some(1)], first=total + 3)
        assert mine is not None
        assert mine.numbers == [total + 3]
        mine.finish({total + 3: Outcome(None, TrialState.FAIL)})
        rest = queue.claim(5)
        assert rest is not None
        rest.finish({number: Outcome([0.0, 0.0]) for number in rest.numbers})
        total += 5
    assert [t.number for t in study.get_trials()] == list(range(total))


def test_a_claim_that_another_made_meanwhile_is_not_ones_own(
    opened: BulkStorage, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_storage(str(opened.engine.url.render_as_string(False)))
    study.enqueue_trial({})
    (trial,) = study.get_trials()
    claimed: list[bool] = []
    action = lambda: claimed.append(other.set_trial_state_values(trial._trial_id, TrialState.RUNNING))  # noqa: E731
    meanwhile(opened, monkeypatch, action)
    with Losing(opened.engine, done=False):
        assert not opened.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    assert claimed == [True]


def test_states_are_those_of_optuna(opened: BulkStorage, study: optuna.Study) -> None:
    with pytest.raises(KeyError):
        opened.set_trial_state_values(10**6, TrialState.RUNNING)
    trial = study.ask()
    assert not opened.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    study.tell(trial, [1.0, 2.0])
    with pytest.raises(UpdateFinishedTrialError, match="Trial#0 has already finished"):
        opened.set_trial_state_values(trial._trial_id, TrialState.RUNNING)


def test_attributes_and_parameters(opened: BulkStorage, study: optuna.Study) -> None:
    for number, lost in enumerate(losing(opened)):
        trial, name = study.ask(), f"size:{number}"
        actions: list[Callable[[], Any]] = [
            lambda: trial.suggest_categorical(name, (0, 1, 2)),  # noqa: B023
            lambda: trial.set_user_attr("a", [1]),  # noqa: B023
            lambda: trial.set_constraint("memory_budget", 0.5),  # noqa: B023
            lambda: study.set_user_attr("b", {"c": 1}),
            lambda: opened.record_heartbeat(trial._trial_id),  # noqa: B023
            lambda: opened.set_trial_intermediate_value(trial._trial_id, 3, 0.5),  # noqa: B023
        ]
        for action in actions:
            times = lost.left
            with lost:
                action()
            lost.left = times
        (found,) = [t for t in study.get_trials() if t.number == trial.number]
        assert found.params.keys() == {name}
        assert (found.user_attrs, found.constraints, found.intermediate_values) == (
            {"a": [1]},
            {"memory_budget": 0.5},
            {3: 0.5},
        )
        lost.left = 0
    assert study.user_attrs == {"b": {"c": 1}}


def test_studies(opened: BulkStorage) -> None:
    for at, lost in enumerate(losing(opened)):
        times = lost.left
        with lost:
            named = optuna.create_study(storage=opened, study_name=f"s{at}", directions=BOTH)
        lost.left = times
        with lost:
            nameless = optuna.create_study(storage=opened)
        assert nameless.directions == [StudyDirection.MINIMIZE]
        for study in (named, nameless):
            assert study.get_trials() == []
        lost.left = times
        with lost:
            opened.delete_study(named._study_id)
        with pytest.raises(KeyError):
            opened.delete_study(named._study_id)
    assert len(opened.get_all_studies()) == 3
    study = optuna.create_study(storage=opened, study_name="there")
    study.add_trial(create_trial(value=1.0))
    with pytest.raises(DuplicatedStudyError), Losing(opened.engine, done=False):
        optuna.create_study(storage=opened, study_name="there")


def test_artifacts(opened: BulkStorage) -> None:
    store = RDBArtifactStore(opened)
    store.write("first", io.BytesIO(b"x"))
    for lost in losing(opened):
        times, content = lost.left, os.urandom(3 * 2**20 + 5)
        with lost:
            store.write("a", io.BytesIO(content))
        assert store.open_reader("a").read() == content
        lost.left = times
        with lost:
            store.remove("a")
    assert [a.name for a in store.stored()] == ["first"]


# SQLite, where the only absence is another process's long transaction


def test_another_process_holds_the_file_for_longer_than_the_busy_timeout(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/aes.db?timeout=0.1")
    study = optuna.create_study(storage=storage, directions=BOTH)
    holder = sqlite3.connect(tmp_path / "aes.db", check_same_thread=False, isolation_level=None)
    for action in (
        lambda: add_trials(study, some(2)),
        study.ask,
        lambda: study.set_user_attr("a", 1),
        lambda: storage.set_trial_state_values(study.get_trials()[-1]._trial_id, TrialState.FAIL),
        lambda: RDBArtifactStore(storage).write("a", io.BytesIO(b"x")),
    ):
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.7, holder.rollback).start()
        action()
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE", "COMPLETE", "FAIL"]
    holder.close()


# Patience


def refuse(storage: BulkStorage) -> None:
    """No connection can be had any more, as when the server is down."""

    def down(*args: Any) -> Any:
        import psycopg

        raise psycopg.OperationalError("connection refused by 10.0.0.1")

    storage.engine.dispose()
    sa.event.listen(storage.engine, "do_connect", down)


def test_patience_ends_in_one_line(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    url = sa.make_url(postgres_url).set(password="hun%ter2").render_as_string(hide_password=False)
    storage = open_storage(url, patience=3)
    study = optuna.create_study(storage=storage, directions=BOTH)
    refuse(storage)
    started = time.monotonic()
    with caplog.at_level(logging.INFO), pytest.raises(StorageError, match="refused") as caught:
        add_trials(study, some(2))
    assert 3 <= time.monotonic() - started < 9
    for action in (
        study.ask,
        lambda: study.set_user_attr("a", 1),
        lambda: RDBArtifactStore(storage).open_reader("a"),
        lambda: pickle.loads(pickle.dumps(storage)).outage and study.get_trials(),
    ):
        started = time.monotonic()
        with pytest.raises(StorageError, match="cannot be used for"):
            action()
        assert time.monotonic() - started < 3  # of one absence one waits for once
    text = str(caught.value) + caplog.text
    assert "\n" not in str(caught.value)
    assert "waiting for it, 3 s at most" in caplog.text
    for secret in ("hun%ter2", "hun%25ter2"):
        assert secret not in text


def test_a_closed_connection_is_an_absence_even_where_sqlalchemy_sees_none() -> None:
    said = {"the connection is closed": True, "syntax error": False}
    for text, expected in said.items():
        error = sa.exc.OperationalError("COMMIT", None, RuntimeError(text))
        assert is_unavailable(error) is expected


def test_a_mistake_is_told_at_once(opened: BulkStorage, study: optuna.Study) -> None:
    started = time.monotonic()
    with pytest.raises(Exception, match="does not exist"), opened.engine.begin() as connection:
        connection.exec_driver_sql("SELECT * FROM nosuch")
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE trial_heartbeats")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        opened.record_heartbeat(study.ask()._trial_id)
    assert time.monotonic() - started < 60  # patience lasts for five minutes


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard here even if a shell started the tests in its background, where it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_is_not_taken_for_an_absence(opened: BulkStorage) -> None:
    timer = threading.Timer(0.5, lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt), opened.engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_sleep(20)")


def test_after_an_absence_others_are_given_time_to_tell_of_themselves(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = open_storage(postgres_url, heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    time.sleep(2.5)
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]
    with Losing(storage.engine, done=False):
        study.set_user_attr("a", 1)
    assert "is back after" in caplog.text
    assert storage._get_stale_trial_ids(study._study_id) == []
    storage.outage._ended = time.monotonic() - 60
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]
