from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from optuna_aes.storage import check_storage, open_storage
from optuna_aes.storage.engine import upgrade_schema

OTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("select count(*) from studies").fetchone()[0])
connection.close()
"""


@pytest.mark.parametrize("again", [open_storage, check_storage, upgrade_schema])
def test_another_process_that_ends_leaves_the_log_of_a_database_in_use(tmp_path: Path, again: object) -> None:
    """SQLite's last connection deletes the log; that one believes to be the last where this process has lost its locks."""
    assert callable(again)
    url, file = f"sqlite:///{tmp_path}/aes.db", tmp_path / "aes.db"
    storage = open_storage(url)
    optuna.create_study(storage=storage, study_name="first")
    again(url)  # a second look at a file that has open connections
    log = tmp_path / "aes.db-wal"
    assert log.exists()
    seen = subprocess.run([sys.executable, "-c", OTHER, str(file)], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "1"
    assert log.exists()
    optuna.create_study(storage=storage, study_name="second")
    assert sqlite3.connect(file).execute("pragma integrity_check").fetchone() == ("ok",)
