"""A database that is away for a while: which errors say so, and how work waits for it instead of ending."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from optuna_aes.errors import StorageError
from optuna_aes.storage._messages import one_line, safe_url

T = TypeVar("T")

PATIENCE = 300.0  # seconds that work waits for its database, unless it says otherwise
LONGEST_PAUSE = 5.0  # seconds between two tries, at most

_logger = logging.getLogger(__name__)

# PostgreSQL: connection exceptions (08…), shutting down, starting up, too many clients, a standby after a fail-over.
_STATES = re.compile(r"08...|57P0[123]|53300|25006")
# MySQL and MariaDB: too many clients, shutting down, read-only, killed, no way to the server, gone, lost.
_CODES = {1040, 1053, 1290, 1927, 2002, 2003, 2006, 2013, 2055, 4031}
# What no waiting helps against, though it too comes when a connection is opened.
_REFUSED_CODES = {1044, 1045, 1049, 1698}
_REFUSED = re.compile(r"authentication|password|does not exist|pg_hba|not permitted|invalid .*option", re.IGNORECASE)


# What psycopg says of a connection that is gone. It came once, on a machine under load, where SQLAlchemy saw no disconnect.
_CLOSED = "the connection is closed"


class UnavailableError(DBAPIError):
    """The database cannot be reached, or the connection to it broke: what was asked for may work later.

    Where it was a commit, nobody knows whether it was done.
    """


def watch(engine: Engine) -> None:
    """Makes an engine raise :class:`UnavailableError` where that is what happened. Does nothing the second time."""
    if not event.contains(engine, "handle_error", _translate):
        event.listen(engine, "handle_error", _translate, retval=True)


def is_unavailable(error: BaseException) -> bool:
    """Whether an :class:`UnavailableError`, or a closed connection, is behind what SQLAlchemy or Optuna raised."""
    seen: BaseException | None = error
    while isinstance(seen, (SQLAlchemyError, StorageInternalError)):
        if isinstance(seen, UnavailableError) or (isinstance(seen, DBAPIError) and str(seen.orig) == _CLOSED):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


class Outage:
    """What one process knows of its database's absence; all its threads wait for the same end.

    Args:
        engine: The database.
        patience: Seconds to wait for it.
    """

    def __init__(self, engine: Engine, patience: float) -> None:
        self.patience = patience
        self._url = engine.url
        self._since: float | None = None
        self._ended: float | None = None

    def wait(self, error: BaseException, tries: int) -> None:
        """Sleeps before another try.

        Args:
            error: What the last try met.
            tries: How many tries there were.

        Raises:
            StorageError: If the database has been away for longer than one has patience.
        """
        now = time.monotonic()
        if self._since is None:
            self._since = now
            _logger.warning(
                "%s cannot be used (%s): waiting for it, %.0f s at most",
                safe_url(self._url),
                self._said(error),
                self.patience,
            )
        away = now - self._since
        if away >= self.patience:
            raise StorageError(
                f"{safe_url(self._url)} cannot be used for {away:.0f} s now ({self._said(error)}): nothing finished is lost, "
                "start again when the database is back"
            ) from None
        time.sleep(min(pause(tries), self.patience - away))

    def over(self) -> None:
        """Notes that the database answered."""
        if self._since is not None:
            _logger.warning("%s is back after %.0f s", safe_url(self._url), time.monotonic() - self._since)
            self._since, self._ended = None, time.monotonic()

    def ended_within(self, seconds: float) -> bool:
        """Whether the database came back no longer ago than that."""
        return self._ended is not None and time.monotonic() - self._ended < seconds

    def _said(self, error: BaseException) -> str:
        return one_line(error, self._url)


def pause(tries: int) -> float:
    """Seconds to wait after so many tries: longer and longer, and not the same for all workers."""
    return min(LONGEST_PAUSE, 0.1 * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)


def outlast(outage: Outage, action: Callable[[], T]) -> T:
    """Does something with the database, again and again while that is away.

    Args:
        outage: Tells how long to go on.
        action: What to do. It has to be such that a second time does no harm, or to find out by itself.

    Raises:
        StorageError: If the database stays away for longer than the outage's patience.
    """
    tries = 0
    while True:
        try:
            result = action()
        except (SQLAlchemyError, StorageInternalError) as error:
            if not is_unavailable(error):
                raise
            outage.wait(error, tries)
            tries += 1
        else:
            outage.over()
            return result


def _translate(context: ExceptionContext) -> BaseException | None:
    error = context.original_exception
    # The pool's look at a connection before it is handed out has its own answer to a broken one: a new one.
    if context.is_pre_ping or not _says_unavailable(context, error):
        return None
    return UnavailableError(None, None, error, connection_invalidated=context.is_disconnect)


def _says_unavailable(context: ExceptionContext, error: Any) -> bool:
    if not isinstance(error, context.dialect.loaded_dbapi.Error):  # such as Ctrl-C, which breaks a connection too
        return False
    if context.dialect.name == "sqlite":
        # Another process writes for longer than the busy timeout. Whatever it was told to, SQLite has not begun it.
        return "is locked" in str(error)
    if context.is_disconnect:
        return True
    code = error.args[0] if getattr(error, "args", ()) else None
    if code in _CODES or _STATES.fullmatch(getattr(error, "sqlstate", None) or ""):
        return True
    if context.connection is not None or not isinstance(error, context.dialect.loaded_dbapi.OperationalError):
        return False
    return code not in _REFUSED_CODES and not _REFUSED.search(str(error))
