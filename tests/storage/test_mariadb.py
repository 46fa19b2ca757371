"""MySQL's language, spoken by a real MariaDB or MySQL, where one is installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from test_bulk import every_kind

from optuna_aes.samplers.trials import rows_of_trials
from optuna_aes.storage import BulkStorage, Outcome, RDBArtifactStore, WorkQueue, add_trials, open_storage
from optuna_aes.storage.artifacts import CHUNK_BYTES

BOTH = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]


class Server:
    """One that listens at a socket only, and can be stopped and started."""

    def __init__(self, folder: Path, program: str, install: str) -> None:
        self.folder, self.program = folder, program
        self.socket = folder / "s"
        user = ["--user=root"] if os.geteuid() == 0 else []
        made = [install, *user, f"--datadir={folder}/data", "--auth-root-authentication-method=normal"]
        subprocess.run(made, check=True, capture_output=True)
        self.command = [program, "--no-defaults", *user, f"--datadir={folder}/data", f"--socket={self.socket}"]
        self.command += ["--skip-networking", "--innodb-flush-log-at-trx-commit=0"]
        self.start()

    def url(self, database: str = "") -> str:
        return f"mysql+pymysql://root@localhost/{database}?unix_socket={self.socket}"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        engine = sa.create_engine(self.url())
        for _ in range(600):
            try:
                engine.connect().close()
                break
            except sa.exc.OperationalError:
                time.sleep(0.1)
        engine.dispose()

    def stop(self) -> None:
        self.process.kill()  # as a crash
        self.process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("pymysql", reason="pip install PyMySQL")
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    program, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if program is None or install is None:
        pytest.skip("no MariaDB server is installed (apt-get install mariadb-server)")
    with tempfile.TemporaryDirectory(prefix="aes-my-") as folder:
        server = Server(Path(folder), program, install)
        yield server
        server.stop()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    name = f"t{uuid.uuid4().hex}"
    engine = sa.create_engine(server.url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield server.url(name)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
    engine.dispose()


@pytest.fixture
def opened(url: str) -> BulkStorage:
    storage = open_storage(url)
    assert isinstance(storage, BulkStorage)
    return storage


def test_settings(opened: BulkStorage) -> None:
    assert opened.get_heartbeat_interval() == 30
    assert opened.engine.pool.size() == 2  # type: ignore[attr-defined]
    with opened.engine.connect() as connection:
        dbapi: Any = connection.connection.dbapi_connection
        assert (dbapi._read_timeout, dbapi._write_timeout, dbapi.connect_timeout) == (120, 120, 10)


def test_groups_and_arrays(opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    assert add_trials(study, every_kind()) == list(range(7))
    names = ["size:user", "size:item", "depth", "lr", "kind"]
    ours = opened.read_trials(study._study_id, names, objectives=2)
    theirs = rows_of_trials(study._storage, study._study_id, names, objectives=2)
    order = ours.ids.argsort(), theirs.ids.argsort()
    for name in ("ids", "numbers", "states", "params", "values"):
        assert str(getattr(ours, name)[order[0]]) == str(getattr(theirs, name)[order[1]]), name
    assert opened.read_user_attr(study._study_id, "note") == {0: "naïve ☃"}


def test_artifacts(opened: BulkStorage) -> None:
    store = RDBArtifactStore(opened)
    for size in (0, CHUNK_BYTES, 3 * CHUNK_BYTES + 17):
        content = os.urandom(size)
        store.write("a", io.BytesIO(content))
        assert store.open_reader("a").read() == content
    assert [a.bytes for a in store.stored()] == [3 * CHUNK_BYTES + 17]
    store.remove("a")


@pytest.mark.parametrize("done", [True, False])
def test_what_was_done_is_not_done_again(opened: BulkStorage, done: bool) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    left = 0

    def lose(connection: sa.Connection) -> None:
        nonlocal left
        if left:
            left -= 1
            dbapi: Any = connection.connection.dbapi_connection
            if done:
                dbapi.commit()
            dbapi._force_close()

    sa.event.listen(opened.engine, "commit", lose)
    left = 1
    sizes = {"size:a": CategoricalDistribution((0, 1, 2))}
    trials = [create_trial(values=[0.5, 1.0], params={"size:a": 1}, distributions=sizes) for _ in range(3)]
    assert add_trials(study, trials) == [0, 1, 2]
    left = 1
    trial = study.ask()
    assert trial.number == 3
    left = 1
    assert opened.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0, 2.0])
    queue = WorkQueue(study)
    assert queue.add([create_trial(state=TrialState.WAITING, user_attrs={"aes:work": True})])
    left = 1
    hold = queue.claim()
    assert hold is not None
    left = 1
    assert hold.finish({4: Outcome([1.0, 1.0])}) == [4]
    assert left == 0
    assert [(t.number, t.state.name) for t in study.get_trials()] == [(n, "COMPLETE") for n in range(5)]


@pytest.mark.slow
def test_the_server_is_killed_and_started(server: Server, opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    sizes = {"size:a": CategoricalDistribution((0, 1, 2))}
    trials = [create_trial(values=[0.5, 1.0], params={"size:a": 1}, distributions=sizes) for _ in range(3)]
    add_trials(study, trials)
    time.sleep(1.5)  # flushed once a second, as it is set here
    server.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened.outage, "wait", lambda error, tries: (server.start(), time.sleep(0.2)))
        assert add_trials(study, trials) == [3, 4, 5]
    assert [t.number for t in study.get_trials()] == list(range(6))
