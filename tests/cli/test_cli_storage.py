"""``optuna-aes storage``: what it finds, removes and upgrades in databases of every kind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch
from command_line import SMALL, Ended
from optuna.artifacts import upload_artifact
from optuna.storages import RDBStorage

from optuna_aes.storage import Checkpoints, RDBArtifactStore, WorkQueue, open_artifact_store, open_storage

Run = Callable[..., Ended]
FIT_ONLY = ["search", "clicks.csv", *SMALL, "--no-run"]


def fill(storage: Any, *names: str, store: Any = None) -> optuna.Study:
    """Two checkpoints under each key of the study ``s``."""
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    for name in names:
        checkpoints = Checkpoints(store or RDBArtifactStore(storage), study, key=name)
        for step in (1, 2):
            checkpoints.save({"w": torch.ones(1000)}, {}, step=step)
    return study


def index(study: optuna.Study, key: str) -> list[dict[str, Any]]:
    return study._storage.get_study_system_attrs(study._study_id)[f"aes:checkpoint:{key}"]


def check(aes: Run, url: str) -> tuple[int, list[str]]:
    ended = aes("storage", "check", "--storage", url)
    assert ended.err == ""
    return ended.code, ended.out.splitlines()


def test_a_sound_database(folder: Path, aes: Run) -> None:
    assert aes("search", "clicks.csv", *SMALL, "--quiet").code == 0
    code, lines = check(aes, "sqlite:///aes.db")
    assert code == 0, lines
    assert lines[0] == "ok   schema v3.2.0.a, 3 studies"
    assert all(line.startswith("ok   ") for line in lines)
    assert "ok   study clicks: 0 running" in lines
    assert "ok   study clicks/fit: 1 artifacts" in lines
    assert aes("storage", "upgrade").out == "schema v3.2.0.a: nothing to do\n"


def test_what_is_wrong_is_found(storage_url: str, aes: Run) -> None:
    storage = open_storage(storage_url)
    study = fill(storage, "fit", "model/1")
    for _ in range(6):
        study.add_trial(optuna.create_trial(value=1.0))
    assert check(aes, storage_url)[0] == 0

    store = RDBArtifactStore(storage)
    store.remove(index(study, "fit")[0]["artifact_id"])
    store.write(index(study, "model/1")[1]["artifact_id"], io.BytesIO(b"something else"))
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET number = 2 WHERE number = 3")
    study.ask()
    code, lines = check(aes, storage_url)
    assert code == 2
    assert [line for line in lines if not line.startswith("ok   ")] == [
        "BAD  study s: 7 trials: 1 share their number with another",
        "BAD  study s: 1 running: nobody works on trial 6: a worker of this search gives them back",
        "BAD  study s: 4 artifacts: fit 1 is missing; model/1 2 is damaged",
    ]
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET number = 9 WHERE number = 6")
        connection.exec_driver_sql("UPDATE trials SET number = 3 WHERE trial_id = 4")
    assert "BAD  study s: 7 trials: numbers go up to 9: some are missing" in check(aes, storage_url)[1]


TAKE = """
import sys, optuna
from optuna_aes.storage import WorkQueue, open_storage
assert WorkQueue(optuna.load_study(storage=open_storage(sys.argv[1]), study_name="s")).claim() is not None
"""


def test_trials_of_dead_workers_are_told_from_those_of_living_ones(storage_url: str, aes: Run) -> None:
    study = fill(open_storage(storage_url))
    for _ in range(2):
        study.enqueue_trial({}, user_attrs={"aes:work": True})
    hold = WorkQueue(study).claim()
    assert hold is not None
    assert "ok   study s: 1 running" in check(aes, storage_url)[1]
    subprocess.run([sys.executable, "-W", "ignore", "-c", TAKE, storage_url], check=True)
    assert (
        "BAD  study s: 2 running: nobody works on trial 1: a worker of this search gives them back"
        in check(aes, storage_url)[1]
    )


def old(storage: Any) -> None:
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE aes_blobs SET created = '2024-01-01 00:00:00'")


def test_gc_of_a_database(storage_url: str, aes: Run, tmp_path: Path) -> None:
    storage = open_storage(storage_url)
    study = fill(storage, "fit")
    store = RDBArtifactStore(storage)
    (tmp_path / "mine.txt").write_text("mine")
    for of in (study, study.ask()):
        upload_artifact(artifact_store=store, file_path=str(tmp_path / "mine.txt"), study_or_trial=of)
    for name in ("aes-lost", "aes-0-lost"):
        store.write(name, io.BytesIO(b"x" * 2048))
    clear = ["storage", "gc", "--storage", storage_url]
    assert aes(*clear).out == "the database: 0 artifacts removed (0 B); 4 in use, 2 too young\n"
    old(storage)
    assert aes(*clear, "--dry-run").out == "the database: 2 artifacts would be removed (4.0 KiB); 4 in use\n"
    assert len(list(store.stored())) == 6
    assert aes(*clear).out == "the database: 2 artifacts removed (4.0 KiB); 4 in use\n"
    assert len(list(store.stored())) == 4
    assert check(aes, storage_url)[0] == 0 or "1 running" in str(check(aes, storage_url)[1])
    optuna.delete_study(study_name="s", storage=storage)
    assert aes(*clear, "--hours", "0").out.startswith("the database: 4 artifacts removed")
    assert list(store.stored()) == []


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_gc_touches_nothing_of_other_databases(
    kind: str, folder: Path, aes: Run, request: pytest.FixtureRequest
) -> None:
    place = str(folder / "weights") if kind == "folder" else f"s3://{request.getfixturevalue('bucket')}"
    studies = []
    for database in ("one", "two"):
        url = f"sqlite:///{database}.db"
        assert aes(*FIT_ONLY, "--storage", url, "--artifacts", place, "--quiet").code == 0
        storage = open_storage(url)
        study = optuna.load_study(storage=storage, study_name="clicks/fit")
        store: Any = open_artifact_store(place, cast(RDBStorage, storage))
        for step in (1, 2):
            Checkpoints(store, study, key="fit").save({"w": torch.ones(10)}, {}, step=step)
        studies.append(study)
    gone = index(studies[0], "fit")[0]
    studies[0]._storage.set_study_system_attr(studies[0]._study_id, "aes:checkpoint:fit", index(studies[0], "fit")[1:])
    store.write("somebody's", io.BytesIO(b"x"))
    if kind == "folder":
        (folder / "weights" / ".part-1").write_bytes(b"xyz")
        for path in (folder / "weights").iterdir():
            os.utime(path, (time.time() - 9999,) * 2)
    ended = aes("storage", "gc", "--storage", "sqlite:///one.db", "--hours", "0")
    assert ended.err == ""
    removed = 2 if kind == "folder" else 1
    assert ended.out.splitlines()[1].startswith(f"{place}: {removed} artifacts removed (")
    assert ended.out.splitlines()[1].endswith("; 1 in use, 3 not of this database's studies")
    names = {a.name for a in store.stored()}
    assert gone["artifact_id"] not in names
    assert names == {"somebody's", *(e["artifact_id"] for s in studies for e in index(s, "fit"))}


def test_upgrade(folder: Path, aes: Run) -> None:
    storage = RDBStorage("sqlite:///aes.db")
    study = optuna.create_study(storage=storage, study_name="s")
    study.add_trial(optuna.create_trial(value=float("inf")))
    with storage.engine.begin() as connection:  # all that the last version changed is an index
        connection.exec_driver_sql("DROP INDEX ix_trials_study_id")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
    storage.engine.dispose()
    ended = aes("status")
    assert ended.code == 2
    assert "run `optuna-aes storage upgrade" in ended.err
    ended = aes("storage", "upgrade")
    assert (ended.code, ended.out) == (0, "schema v3.0.0.d is now v3.2.0.a\n")
    assert [t.value for t in optuna.load_study(storage=open_storage("sqlite:///aes.db"), study_name="s").trials] == [
        float("inf")
    ]
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v99.0.0'")
    for verb in ("upgrade", "check", "gc"):
        ended = aes("storage", verb)
        assert ended.code == 2
        assert "v99.0.0" in ended.err
        assert ended.err.count("\n") == 1


def test_there_must_be_a_database(folder: Path, aes: Run) -> None:
    for verb in ("upgrade", "check", "gc"):
        ended = aes("storage", verb, "--storage", "sqlite:///nosuch.db")
        assert (ended.code, ended.out) == (2, "")
        assert "nosuch.db does not exist" in ended.err
    assert not (folder / "nosuch.db").exists()
