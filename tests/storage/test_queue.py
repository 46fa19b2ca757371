"""A study as a queue of work, for several workers: in our own transactions, and by Optuna's public calls alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import IntDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_aes.storage import (
    Decision,
    LostTrialError,
    Outcome,
    RequeueTrial,
    WorkQueue,
    open_storage,
    queue,
    worker_identity,
    workers,
)
from optuna_aes.storage._queue_sql import HEARTBEATS, SqlBackend
from optuna_aes.storage._queue_stock import StockBackend
from optuna_aes.storage.bulk import BulkStorage

CLAIM_AND_HANG = """
import sys, time, optuna
from optuna_aes.storage import WorkQueue, open_storage
study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))
hold = WorkQueue(study).claim()
trial = optuna.Trial(study, next(iter(hold.trials)))
trial.report(0.5, 1)
trial.set_user_attr("note", "kept")
print("claimed", flush=True)
time.sleep(60)
"""

RACE = """
import sys, optuna
from optuna_aes.storage import Outcome, WorkQueue, open_storage
from optuna.trial import TrialState, create_trial
study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))
queue = WorkQueue(study)
print("ready", flush=True)
for line in sys.stdin:  # a round: lay out one trial as number n, take it, finish it
    first = int(line)
    laid = queue.add([create_trial(state=TrialState.WAITING)], first=first)
    hold = queue.claim()
    ended = hold.finish({n: Outcome([1.0]) for n in hold.numbers}) if hold else []
    print(int(laid), len(ended), flush=True)
"""


@pytest.fixture(params=["sqlite", "postgres", "in memory"])
def study(request: pytest.FixtureRequest, tmp_path: Any) -> optuna.Study:
    if request.param == "in memory":
        storage: Any = InMemoryStorage()
    elif request.param == "sqlite":
        storage = open_storage(f"sqlite:///{tmp_path}/aes.db")
    else:
        storage = open_storage(request.getfixturevalue("postgres_url"))
    return optuna.create_study(study_name="s", storage=storage)


def waiting(x: int = 3, **attrs: Any) -> FrozenTrial:
    return create_trial(
        state=TrialState.WAITING, params={"x": x}, distributions={"x": IntDistribution(0, 9)}, user_attrs=attrs
    )


def running(x: int = 3) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, params={"x": x}, distributions={"x": IntDistribution(0, 9)})


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def hold_of(work: WorkQueue, limit: int = 1) -> queue.Hold:
    hold = work.claim(limit)
    assert hold is not None
    return hold


def dead_mark() -> dict[str, Any]:
    process = subprocess.Popen(["true"])
    process.wait()
    return {**worker_identity(), "pid": process.pid, "started": "1", "claim": "1"}


def orphan(study: optuna.Study, **changes: Any) -> int:
    """A running trial of a dead worker, or of one as the changes say."""
    work = WorkQueue(study)
    work.add([waiting()])
    ((trial_id, number),) = hold_of(work).trials.items()
    study._storage.set_trial_user_attr(trial_id, queue.WORKER, {**dead_mark(), **changes})
    return number


def test_which_storages_have_which_queue(storage_url: str) -> None:
    ours = optuna.create_study(storage=open_storage(storage_url))
    assert isinstance(WorkQueue(ours).backend, SqlBackend)
    stock = optuna.create_study(storage=optuna.storages.RDBStorage(storage_url))
    assert isinstance(WorkQueue(stock).backend, SqlBackend)
    assert isinstance(WorkQueue(optuna.create_study()).backend, StockBackend)


def test_laid_out_taken_finished(study: optuna.Study) -> None:
    work = WorkQueue(study)
    assert work.claim() is None
    assert work.add([waiting(1), waiting(2, note="kept"), waiting(5)], first=0)
    assert not work.add([waiting(9)], first=0), "another came first"
    hold = hold_of(work, 2)
    assert hold.numbers == [0, 1]
    assert states(study) == ["RUNNING", "RUNNING", "WAITING"]
    hold.check()
    assert hold.finish({1: Outcome([0.25], attrs={"seconds": 2}), 0: Outcome(None, TrialState.PRUNED)}) == [0, 1]
    pruned, done, rest = study.get_trials()
    assert (pruned.state, done.state, rest.state) == (TrialState.PRUNED, TrialState.COMPLETE, TrialState.WAITING)
    assert (pruned.values, done.values, done.params) == (None, [0.25], {"x": 2})
    assert (done.user_attrs["note"], done.user_attrs["seconds"]) == ("kept", 2)
    assert done.datetime_start is not None
    assert done.datetime_complete is not None
    assert abs((done.datetime_complete - done.datetime_start).total_seconds()) < 60
    assert hold.finish({1: Outcome([0.5])}) == [], "once"
    assert study.trials[1].values == [0.25]


def test_laid_out_under_its_own_name(study: optuna.Study) -> None:
    work = WorkQueue(study)
    over = create_trial(state=TrialState.PRUNED, params={"x": 9}, distributions={"x": IntDistribution(0, 9)})
    hold = work.hold([running(1), over, running(2)], first=0)
    assert hold is not None
    assert hold.numbers == [0, 2]
    assert work.hold([running()], first=0) is None
    assert "RUNNING" not in states(study)[3:]
    assert work.claim() is None
    assert hold.finish({0: Outcome([1.0]), 2: Outcome([2.0])}) == [0, 2]
    assert states(study)[:3] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_given_back_it_keeps_its_number_and_all_it_has(study: optuna.Study) -> None:
    work = WorkQueue(study)
    work.add([waiting(4), waiting(5)])
    hold = hold_of(work, 2)
    trial = optuna.Trial(study, next(iter(hold.trials)))
    trial.report(0.5, 1)
    hold.release({0: {"failures": ["once"]}})
    assert states(study) == ["WAITING", "RUNNING"]
    hold.release()
    assert states(study) == ["WAITING", "WAITING"]
    again = hold_of(work)
    assert again.numbers == [0]
    (back,) = study.get_trials(states=(TrialState.RUNNING,))
    assert (back.params, back.intermediate_values, back.user_attrs["failures"]) == ({"x": 4}, {1: 0.5}, ["once"])


def test_a_decision_is_made_once_and_with_its_trials(study: optuna.Study) -> None:
    work = WorkQueue(study)
    assert work.add([waiting()], first=0, decision=Decision("picks", None, [1, 2]))
    assert not work.add([waiting()], first=1, decision=Decision("picks", None, [3]))
    assert (study.user_attrs["picks"], len(study.trials)) == ([1, 2], 1)
    assert not work.add([waiting()], first=0, decision=Decision("picks", [1, 2], [3]))
    assert study.user_attrs["picks"] == [1, 2]
    assert work.add([], decision=Decision("picks", [1, 2], [3]))
    assert study.user_attrs["picks"] == [3]


def test_a_slow_worker_that_was_declared_dead_changes_nothing(study: optuna.Study) -> None:
    work = WorkQueue(study)
    work.add([waiting()])
    slow = hold_of(work)
    work.backend.release(slow.mark, {trial_id: {} for trial_id in slow.trials})  # as another worker does
    for taken in (False, True):
        fast = hold_of(work) if taken else None
        with pytest.raises(LostTrialError, match="trial 0 of s was taken over"):
            slow.check()
        assert slow.finish({0: Outcome([0.1])}) == []
        slow.release({0: {"failures": ["mine"]}})
        assert states(study) == ["RUNNING" if taken else "WAITING"]
        assert "failures" not in study.trials[0].user_attrs
    assert fast is not None
    assert fast.finish({0: Outcome([0.9])}) == [0]
    assert slow.finish({0: Outcome([0.1])}) == []
    assert study.trials[0].values == [0.9]


def test_only_the_dead_of_this_machine(study: optuna.Study) -> None:
    work = WorkQueue(study)
    work.add([waiting()])
    hold_of(work)  # alive: this process
    orphan(study, host="elsewhere")
    orphan(study, boot="before")
    orphan(study, pid_namespace="pid:[1]")
    dead = orphan(study)
    reused = orphan(study, pid=worker_identity()["pid"])
    study.ask()  # a stock worker's, without heartbeats
    assert work.reclaim() == [dead, reused]
    assert states(study) == ["RUNNING"] * 4 + ["WAITING"] * 2 + ["RUNNING"]
    assert work.reclaim() == []


def test_a_trial_that_kills_its_workers_is_given_up(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_DEATHS", 3)
    number = orphan(study)
    for _ in range(2):
        assert WorkQueue(study).reclaim() == [number]
        ((trial_id, _),) = hold_of(WorkQueue(study)).trials.items()
        study._storage.set_trial_user_attr(trial_id, queue.WORKER, dead_mark())
    assert WorkQueue(study).reclaim() == [number]
    (trial,) = study.trials
    assert (trial.state, trial.user_attrs[queue.REASON]) == (TrialState.FAIL, "3 workers died over it")


def silent_trials(storage: BulkStorage) -> int:
    """How many trials were last heard of long ago, which is what :func:`silence` makes of all."""
    long_ago = sa.select(sa.func.count()).select_from(HEARTBEATS).where(HEARTBEATS.c.heartbeat < datetime(2001, 1, 1))
    with storage.engine.connect() as connection:
        return int(connection.execute(long_ago).scalar_one())


def silence(storage: BulkStorage) -> None:
    with storage.engine.begin() as connection:
        connection.execute(sa.update(HEARTBEATS).values(heartbeat=datetime(2000, 1, 1)))


def test_a_silent_worker_elsewhere_is_given_up(storage_url: str) -> None:
    storage = open_storage(storage_url, heartbeat_interval=1, grace_period=60)
    study = optuna.create_study(study_name="s", storage=storage)
    number = orphan(study, host="elsewhere")
    work = WorkQueue(study)
    assert work.reclaim() == []
    silence(storage)
    assert work.reclaim() == [number]
    assert states(study) == ["WAITING"]


def test_signs_of_life_keep_a_trial(storage_url: str) -> None:
    storage = open_storage(storage_url, heartbeat_interval=1, grace_period=60)
    study = optuna.create_study(study_name="s", storage=storage)
    work = WorkQueue(study)
    work.add([waiting()])
    hold = hold_of(work)
    elsewhere = {**json.loads(hold.mark), "host": "elsewhere"}
    study._storage.set_trial_user_attr(next(iter(hold.trials)), queue.WORKER, elsewhere)
    silence(storage)
    with queue.Hold(work, json.dumps(elsewhere), hold.trials).beating():
        deadline = time.monotonic() + 30
        while silent_trials(storage) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert work.reclaim() == []
    silence(storage)
    with hold.beating():  # under a name that is not the trial's: of no effect
        time.sleep(3)
        assert work.reclaim() == [0]


def test_a_killed_worker_is_found_at_once(storage_url: str) -> None:
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url))
    work = WorkQueue(study)
    work.add([waiting(7)])
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLAIM_AND_HANG, storage_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    assert work.reclaim() == []
    process.send_signal(signal.SIGKILL)  # and not waited for: a zombie is dead too
    deadline = time.monotonic() + 10
    while not (found := work.reclaim()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.communicate()
    assert found == [0]
    (trial,) = study.trials
    assert (trial.state, trial.params, trial.intermediate_values) == (TrialState.WAITING, {"x": 7}, {1: 0.5})
    assert (trial.user_attrs["note"], trial.user_attrs[queue.DEATHS]) == ("kept", 1)
    assert queue.WORKER not in trial.user_attrs


def test_racing_processes_lay_out_take_and_finish_once(storage_url: str) -> None:
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url))
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RACE, storage_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for first in range(50):
            laid, ended = 0, 0
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"{first}\n")
                racer.stdin.flush()
            for racer in racers:
                assert racer.stdout is not None
                counts = racer.stdout.readline().split()
                laid, ended = laid + int(counts[0]), ended + int(counts[1])
            assert (laid, ended) == (1, 1)
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
    assert states(study) == ["COMPLETE"] * 50
    assert [t.values for t in study.trials] == [[1.0]] * 50


def test_racing_reclaimers_give_back_each_once(study: optuna.Study) -> None:
    dead = [orphan(study) for _ in range(10)]
    given: list[int] = []
    threads = [threading.Thread(target=lambda: given.extend(WorkQueue(study).reclaim())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if isinstance(WorkQueue(study).backend, SqlBackend):  # by public calls two may both believe that they did it
        assert sorted(given) == dead
    assert states(study) == ["WAITING"] * 10


def test_a_stock_workers_stale_trial_is_queued_by_optuna_without_its_name(storage_url: str) -> None:
    storage = open_storage(storage_url, heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(study_name="s", storage=storage)
    trial = study.ask()
    trial.set_user_attr(queue.WORKER, {"host": "elsewhere"})
    RequeueTrial()(study, study.get_trials()[0])
    assert study.trials[1].user_attrs == {}
    assert study.trials[1].state == TrialState.WAITING


def test_a_mark_in_the_database_is_the_one_that_was_given(storage_url: str) -> None:
    """Every later step compares it as text."""
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url))
    work = WorkQueue(study)
    work.add([waiting()])
    hold = hold_of(work)
    engine = study._storage._backend.engine  # type: ignore[attr-defined]
    with engine.connect() as connection:
        query = sa.text("SELECT value_json FROM trial_user_attributes WHERE key = 'worker'")
        assert connection.execute(query).scalar() == hold.mark


def test_identity() -> None:
    first, second = worker_identity(), worker_identity()
    assert first == second
    assert workers.same_machine(first)
    assert not workers.died_here(first)
    assert workers._stat(first["pid"]) == (True, first["started"])
    assert workers.died_here(dead_mark())
