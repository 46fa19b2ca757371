from __future__ import annotations

import os
import pickle
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from optuna_aes.errors import StorageError
from optuna_aes.storage import open_storage, safe_url

WRITE = """
import sys, optuna
from optuna_aes.storage import open_storage
storage = open_storage(sys.argv[1], heartbeat_interval=None)
study = optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
for _ in range(int(sys.argv[2])):
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    study.tell(trial, 0.5)
"""

FAIL_ALL = """
import sys, optuna
from optuna.trial import TrialState
from optuna_aes.storage import open_storage
storage = open_storage(sys.argv[1])
won = 0
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    trial_id = storage.get_trial_id_from_study_id_trial_number(1, number)
    try:
        won += storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except optuna.exceptions.UpdateFinishedTrialError:
        pass
print(won)
"""


def run_together(script: str, copies: int, *args: str) -> Sequence[str]:
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(copies)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * copies, outputs
    return [stdout for stdout, _ in outputs]


def message(url: str, **kwargs: bool) -> str:
    with pytest.raises(StorageError) as caught:
        open_storage(url, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    printed = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in text + printed
    return text


def test_sqlite_settings(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/aes.db")
    with storage.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "busy_timeout")]
        assert settings == ["wal", 60_000]
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_heartbeat_and_retries(storage_url: str) -> None:
    storage = open_storage(storage_url, heartbeat_interval=7, grace_period=20)
    assert storage.get_heartbeat_interval() == 7
    assert storage.grace_period == 20
    assert isinstance(storage.get_heartbeat_stale_trial_callback(), optuna.storages.RetryHeartbeatStaleTrialCallback)


def test_opens_without_warning(storage_url: str, recwarn: pytest.WarningsRecorder) -> None:
    open_storage(storage_url)
    open_storage(storage_url, must_exist=True)
    # Connections of earlier tests may be collected meanwhile.
    assert [str(w.message) for w in recwarn if w.category is not ResourceWarning] == []


def test_open_storage_is_given_back(storage_url: str) -> None:
    storage = optuna.storages.RDBStorage(storage_url)
    assert open_storage(storage) is storage
    assert open_storage(storage) is storage


def test_pickled_copy_keeps_the_settings(storage_url: str) -> None:
    storage = open_storage(storage_url)
    copy = pickle.loads(pickle.dumps(storage))
    assert optuna.create_study(storage=copy, study_name="s").study_name == "s"
    if copy.engine.dialect.name == "sqlite":
        with copy.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1


def test_memory() -> None:
    study = optuna.create_study(storage=open_storage("sqlite://"))  # without heartbeats: their thread has no access
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert len(study.trials) == 1


def test_braces_in_the_path(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path}/a{{b}}.db")
    assert (tmp_path / "a{b}.db").exists()


def test_processes_create_and_write_together(storage_url: str) -> None:
    run_together(WRITE, 4, storage_url, "5")
    study = optuna.load_study(study_name="s", storage=open_storage(storage_url, must_exist=True))
    assert sorted(trial.number for trial in study.trials) == list(range(20))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_finishing_a_trial_is_a_compare_and_set(storage_url: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url, heartbeat_interval=None))
    for _ in range(60):
        study.ask()
    won = run_together(FAIL_ALL, 3, storage_url, "60")
    assert sum(map(int, won)) == 60


def test_claiming_a_trial_is_a_compare_and_set(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/aes.db")
    study = optuna.create_study(storage=storage)
    study.enqueue_trial({})
    trial_id = study.trials[0]._trial_id
    seen = []

    @sa.event.listens_for(storage.engine, "after_cursor_execute")
    def steal(conn: object, cursor: object, statement: str, *rest: object) -> None:
        # Between our look at the state and our change of it another process tries the same.
        if "trials.state" in statement and not seen:
            seen.append(statement)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                sqlite3.connect(tmp_path / "aes.db", timeout=0).execute("UPDATE trials SET state='RUNNING'")

    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    assert seen


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("postgresql+psycopg://u@h/d?password=hunter2&x=1", "postgresql+psycopg://u@h/d?password=***&x=1"),
        ("postgresql://u:hunter2", "postgresql://..."),
        ("postgresql://u:hun/ter2@h:port/d", "postgresql://..."),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("a.db", "a.db"),
        ("u:hunter2@h", "..."),
    ],
)
def test_safe_url(url: str, safe: str) -> None:
    assert safe_url(url) == safe


@pytest.mark.parametrize("url", ["aes.db", "postgresql://u:hunter2@h:port/d", "", "sqlite//x"])
def test_malformed_url(url: str) -> None:
    assert "is not a storage URL: write sqlite:///FILE.db" in message(url)


def test_unknown_kind() -> None:
    assert "does not know: write sqlite:///FILE.db" in message("nosuch://u:hunter2@h/d")


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    text = message("postgresql://u:hunter2@h/d")
    assert text.endswith('pip install "optuna-aes[postgres]"')


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@127.0.0.1:1/d",
        "postgresql+psycopg://u:hunter2@no-such-host.invalid/d",
        "postgres://u@127.0.0.1:1/d?password=hunter2",
        "postgresql://u@h/d?sslpassword=hunter2&nosuch=1",
    ],
)
def test_unreachable_server(url: str) -> None:
    pytest.importorskip("psycopg")
    text = message(url)
    assert "cannot be opened" in text
    assert "check that the server runs" in text


def test_missing_postgres_database(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(database="nosuch", password="hunter2").render_as_string(hide_password=False)
    assert 'database "nosuch" does not exist' in message(url)


def test_missing_folder(tmp_path: Path) -> None:
    assert message(f"sqlite:///{tmp_path}/no/aes.db").endswith("does not exist: create it first")
    assert list(tmp_path.iterdir()) == []


def test_folder_given_as_file(tmp_path: Path) -> None:
    assert "is not a file: give a file" in message(f"sqlite:///{tmp_path}")


def test_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user,item,click\n" * 100)
    assert "is not a SQLite database" in message(f"sqlite:///{tmp_path}/a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert "cannot be opened" in message(f"sqlite:///{tmp_path}/a.db")


def test_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so the system's answer is made up.
    (tmp_path / "a.db").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "cannot be written" in message(f"sqlite:///{tmp_path}/a.db")
    assert "cannot be created" in message(f"sqlite:///{tmp_path}/b.db")
    assert not (tmp_path / "b.db").exists()


def test_must_exist(tmp_path: Path, postgres_url: str) -> None:
    assert "does not exist" in message(f"sqlite:///{tmp_path}/aes.db", must_exist=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty.db").touch()
    assert "holds no studies" in message(f"sqlite:///{tmp_path}/empty.db", must_exist=True)
    assert "holds no studies" in message(postgres_url, must_exist=True)
    with sa.create_engine(postgres_url).connect() as connection:
        assert sa.inspect(connection).get_table_names() == []


@pytest.mark.parametrize(
    ("version", "todo"), [("v3.0.0.d", "optuna-aes storage upgrade"), ("v99.0.0", "pip install -U")]
)
def test_schema_of_another_version(storage_url: str, version: str, todo: str) -> None:
    engine = open_storage(storage_url).engine
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        connection.exec_driver_sql("DROP TABLE trial_heartbeats")
    text = message(storage_url)
    assert version in text
    assert todo in text
    assert "trial_heartbeats" not in sa.inspect(engine).get_table_names()


def test_database_of_another_program(storage_url: str) -> None:
    engine = sa.create_engine(storage_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
    assert "belongs to another program" in message(storage_url)
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
