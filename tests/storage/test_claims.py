from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from typing import Any

import optuna
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import TrialState

from optuna_aes.storage import claims, mark_worker, open_storage, reclaim_dead, release, worker_identity

CLAIM_AND_HANG = """
import sys, time, optuna
from optuna_aes.storage import mark_worker, open_storage
storage = open_storage(sys.argv[1])
study = optuna.load_study(study_name="s", storage=storage)
def objective(trial):
    mark_worker(trial)
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    trial.set_user_attr("note", "kept")
    print("claimed", flush=True)
    time.sleep(60)
study.optimize(objective, n_trials=1)
"""

RECLAIM = """
import sys, optuna
from optuna_aes.storage import open_storage, reclaim_dead
study = optuna.load_study(study_name="s", storage=open_storage(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(len(reclaim_dead(study)))
"""


@pytest.fixture
def study(storage_url: str) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(storage_url))


def start(script: str, *args: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def ask(study: optuna.Study) -> optuna.Trial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of heartbeats
        return study.ask()


def dead_worker() -> dict[str, Any]:
    process = subprocess.Popen(["true"])
    process.wait()
    return {**worker_identity(), "pid": process.pid, "started": "1"}


def orphan(study: optuna.Study, **changes: Any) -> optuna.Trial:
    trial = ask(study)
    trial.set_user_attr("worker", {**dead_worker(), "trial": trial.number, **changes})
    return trial


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_killed_worker_is_found_at_once(study: optuna.Study, storage_url: str) -> None:
    study.enqueue_trial({"x": 0.25}, user_attrs={"seed": 3})
    process = start(CLAIM_AND_HANG, storage_url)
    assert reclaim_dead(study) == []
    # Killed, and not yet waited for: a zombie is dead too.
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not (found := reclaim_dead(study)) and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(process)
    assert found == [0]
    assert reclaim_dead(study) == []
    dead, clone = study.get_trials()
    assert (dead.state, clone.state) == (TrialState.FAIL, TrialState.WAITING)
    assert clone.params == {"x": 0.25}
    assert clone.user_attrs == {"seed": 3, "note": "kept"}
    assert clone.intermediate_values == {1: 0.5}
    assert RetryHeartbeatStaleTrialCallback.retry_history(clone) == [0]
    trial = ask(study)
    assert trial.number == 1
    assert trial.suggest_float("x", 0, 1) == 0.25


def test_racing_reclaimers_make_one_clone_each(study: optuna.Study, storage_url: str) -> None:
    for _ in range(20):
        orphan(study)
    processes = [start(RECLAIM, storage_url) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sum(outputs) == 20
    assert states(study) == [TrialState.FAIL] * 20 + [TrialState.WAITING] * 20
    assert sorted(trial.system_attrs["failed_trial"] for trial in study.trials[20:]) == list(range(20))


def test_only_the_dead_of_this_machine(study: optuna.Study) -> None:
    mark_worker(ask(study))  # alive: this process
    ask(study)  # not marked
    orphan(study, host="elsewhere")
    orphan(study, boot="before")
    orphan(study, pid_namespace="pid:[1]")
    orphan(study, trial=77)  # a mark copied from another trial
    dead = orphan(study)
    finished = orphan(study)
    study.tell(finished, 1.0)
    assert reclaim_dead(study) == [dead.number]


def test_reused_process_id(study: optuna.Study) -> None:
    reused = orphan(study, pid=os.getpid(), started="1")
    assert reclaim_dead(study) == [reused.number]


def test_retries_end(storage_url: str) -> None:
    study = optuna.create_study(study_name="s", storage=open_storage(storage_url, max_retry=1))
    assert reclaim_dead(study) == []
    orphan(study)
    assert reclaim_dead(study) == [0]
    assert orphan(study).number == 1
    assert reclaim_dead(study) == [1]
    assert states(study) == [TrialState.FAIL, TrialState.FAIL]


def test_heartbeats_clone_forgets_the_worker(storage_url: str) -> None:
    storage = open_storage(storage_url, heartbeat_interval=1, grace_period=1)
    study = optuna.create_study(study_name="s", storage=storage)
    trial = orphan(study, host="elsewhere")
    storage.record_heartbeat(trial._trial_id)
    deadline = time.monotonic() + 10
    while len(study.trials) == 1 and time.monotonic() < deadline:
        time.sleep(0.2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fail_stale_trials(study)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    assert study.trials[1].user_attrs == {}


def test_without_a_database() -> None:
    study = optuna.create_study()
    dead = orphan(study)
    assert reclaim_dead(study) == [dead.number]
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_release(study: optuna.Study) -> None:
    trial = ask(study)
    mark_worker(trial)
    trial.suggest_float("x", 0, 1)
    assert release(study, trial)
    assert not release(study, trial)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    clone = study.trials[1]
    assert clone.params == trial.params
    assert clone.user_attrs == {}
    assert RetryHeartbeatStaleTrialCallback.retry_history(clone) == []


def test_identity() -> None:
    first, second = worker_identity(), worker_identity()
    assert first == second
    assert first["pid"] == os.getpid()
    assert claims._stat(first["pid"]) == (True, first["started"])
    assert not claims._stat(dead_worker()["pid"])[0]
