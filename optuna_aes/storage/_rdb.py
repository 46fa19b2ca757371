"""What SQLite needs to hold an Optuna study for several processes, applied to every engine that we open."""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import event
from sqlalchemy.dialects import plugins
from sqlalchemy.engine import URL, Connection, CreateEnginePlugin, Engine
from sqlalchemy.exc import SQLAlchemyError

from optuna_aes.samplers.trials import backend_of
from optuna_aes.storage._messages import one_line
from optuna_aes.storage._outage import watch

T = TypeVar("T")

PLUGIN = "optuna_aes"

# A blob of a large model leaves a write-ahead log as large as itself; this lets SQLite give the space back.
_MAX_WAL_BYTES = 64 * 2**20

_RACE = re.compile(r"already exists|duplicate|unique constraint|concurrently updated|deadlock", re.IGNORECASE)


class EnginePlugin(CreateEnginePlugin):
    """Prepares an engine before its first connection.

    A plugin, and not a listener added later, because RDBStorage connects in its constructor, and makes its engine anew
    from the same keyword arguments when it is unpickled in another process.
    """

    def update_url(self, url: URL) -> URL:
        """Leave the URL as it is."""
        return url

    def engine_created(self, engine: Engine) -> None:
        """Add our listeners to the new engine."""
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_pragmas)
        ensure_row_locks(engine)
        watch(engine)


plugins.register(PLUGIN, __name__, EnginePlugin.__name__)


def ensure_row_locks(engine: Engine) -> None:
    """Make SELECT … FOR UPDATE hold its promise on SQLite. Does nothing elsewhere, or the second time.

    Optuna claims and finishes trials with SELECT … FOR UPDATE and then UPDATE. SQLite has no FOR UPDATE and SQLAlchemy
    leaves the clause out, so that two processes both read RUNNING and both believe they were the one to change it.
    """
    if engine.dialect.name == "sqlite" and not event.contains(engine, "before_cursor_execute", _lock_for_update):
        event.listen(engine, "before_cursor_execute", _lock_for_update)


def rdb_of(storage: BaseStorage) -> RDBStorage | None:
    """The RDBStorage under a study's storage (Optuna wraps it in a cache), or None if there is none."""
    inner = backend_of(storage)
    return inner if isinstance(inner, RDBStorage) else None


def retry_races(action: Callable[[], T]) -> T:
    """Do what creates tables or rows, again if another process was creating the same ones just before us."""
    for attempt in range(30):
        try:
            return action()
        except (SQLAlchemyError, OptunaError) as error:
            if not _RACE.search(one_line(error)):
                raise
            _pause(attempt)
    return action()


def _pause(attempt: int) -> None:
    """Wait a little before trying again; random, so that two processes do not meet again."""
    time.sleep(random.uniform(0.01, 0.05) * min(attempt + 1, 5))


def _set_pragmas(connection: sqlite3.Connection, record: object) -> None:
    """Readers that do not block writers, and a commit that costs no fsync (safe against a killed process)."""
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(f"PRAGMA journal_size_limit={_MAX_WAL_BYTES}")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    for attempt in range(100):
        if connection.execute("PRAGMA journal_mode").fetchone()[0] in ("wal", "memory"):
            return
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # The switch does not heed the busy timeout. Whoever holds the lock may be making the same switch.
            if "locked" not in str(error):
                return  # e.g. opened with mode=ro: still good for reading
            _pause(attempt)


def _lock_for_update(
    connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    invoked = getattr(context, "invoked_statement", None)
    if getattr(invoked, "_for_update_arg", None) is None:
        return
    if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr]  # it is executing
        connection.exec_driver_sql("BEGIN IMMEDIATE")
