"""Opening the relational database that holds the studies, with errors that a user can act on."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from optuna_aes.errors import StorageError
from optuna_aes.storage._messages import one_line, safe_url
from optuna_aes.storage._outage import PATIENCE, is_unavailable, pause
from optuna_aes.storage._rdb import PLUGIN, ensure_row_locks, retry_races
from optuna_aes.storage.bulk import BulkStorage
from optuna_aes.storage.claims import RequeueTrial

T = TypeVar("T")

BUSY_TIMEOUT = 60  # seconds a SQLite writer waits for another
CONNECT_TIMEOUT = 10  # seconds until a server that does not answer counts as unreachable

_KINDS = (
    "sqlite:///FILE.db, postgresql://USER:PASSWORD@HOST/DATABASE, mysql+pymysql://USER:PASSWORD@HOST/DATABASE or "
    "grpc://HOST:PORT"
)


def open_storage(
    url: str | RDBStorage,
    *,
    heartbeat_interval: int | None = 30,
    grace_period: int | None = 120,
    max_retry: int | None = 3,
    must_exist: bool = False,
    patience: float = PATIENCE,
    wait: float = 0.0,
) -> RDBStorage:
    """Open the database that holds the studies, and create Optuna's tables where they are not there yet.

    SQLite gets a write-ahead log, a busy timeout and row locks that hold between processes; servers get a checked
    connection pool. All processes that share a SQLite file should open it here: stock Optuna takes no lock there when
    it claims a trial.

    Args:
        url: ``sqlite:///FILE.db``, ``postgresql://…`` (psycopg is the driver unless the URL names one), any other
            URL that SQLAlchemy knows, or ``grpc://HOST:PORT``, Optuna's proxy (no heartbeats, no artifacts in the
            database, trials recorded one by one). A storage that is open already is given back, with the row locks added.
        heartbeat_interval: Seconds between two signs of life of a trial under ``study.optimize``, or None for none.
        grace_period: Seconds without a sign of life after which another worker takes the trial over.
        max_retry: How often one trial is taken over, or None for no limit.
        must_exist: Whether a database without studies is an error, as it is for whoever only reads.
        patience: Seconds that later calls wait for a database that went away, before they fail.
        wait: Seconds to wait for one that cannot be reached now; a mistake in the URL is then told that much later.

    Returns:
        The storage; of a URL a :class:`BulkStorage`, which records groups of trials at once and reads them as arrays.

    Raises:
        StorageError: If the database cannot be opened or was made by another version of Optuna. The message is one
            line and holds no password. Nothing has been created then.
    """
    if isinstance(url, RDBStorage):
        ensure_row_locks(url.engine)
        return url
    if not isinstance(url, str):
        return cast(RDBStorage, url)  # another of Optuna's storages, for which everything has a slower way
    parsed = _parse(url)
    if parsed.drivername == "grpc":
        return cast(RDBStorage, _open_proxy(parsed, patience=patience, wait=wait))
    file = _check_sqlite_file(parsed, must_exist)
    is_new = file is not None and not file.exists()
    if file is None and parsed.get_backend_name() == "sqlite":
        heartbeat_interval = None  # a database in memory is another one in the heartbeat's thread
    kwargs = _engine_kwargs(parsed)

    def attempt() -> RDBStorage:
        has_schema = False if is_new else _find_schema(parsed, kwargs, must_exist)
        with warnings.catch_warnings():
            # Heartbeats are "experimental" in Optuna; the user did not ask for them and cannot act on the warning.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return _open(
                _optuna_url(parsed),
                create=not has_schema,
                engine_kwargs=kwargs,
                heartbeat_interval=heartbeat_interval,
                grace_period=grace_period,
                heartbeat_stale_trial_callback=RequeueTrial(max_retry=max_retry),
                patience=patience,
            )

    try:
        return _until(time.monotonic() + wait, attempt)
    except (SQLAlchemyError, OptunaError, ImportError, OSError, TypeError) as error:
        if is_new:
            _remove_if_empty(file)
        raise _explain(parsed, error) from None


def _open_proxy(url: URL, *, patience: float, wait: float) -> BaseStorage:
    try:
        from optuna_aes.storage._proxy import open_proxy
    except ImportError:
        raise StorageError(f'the storage {safe_url(url)} needs grpcio: pip install "optuna-aes[grpc]"') from None
    if not url.host or url.database or url.username:
        raise StorageError(f"the storage {safe_url(url)} must be grpc://HOST:PORT and no more")
    return open_proxy(url.host, url.port, patience=patience, wait=wait)


def check_storage(url: str) -> bool:
    """Finds out whether a database could be opened, and creates nothing.

    Args:
        url: As :func:`open_storage` takes it.

    Returns:
        Whether studies can be in it; False where there is no database yet, or one without Optuna's tables.

    Raises:
        StorageError: If :func:`open_storage` would fail.
    """
    parsed = _parse(url)
    if parsed.drivername == "grpc":
        _open_proxy(parsed, patience=PATIENCE, wait=0.0)
        return True
    file = _check_sqlite_file(parsed, must_exist=False)
    if file is None and parsed.get_backend_name() == "sqlite":
        return False  # in memory: every opening makes another one
    if file is not None and not file.exists():
        return False
    try:
        return _find_schema(parsed, _engine_kwargs(parsed), must_exist=False)
    except (SQLAlchemyError, OptunaError, ImportError, OSError, TypeError) as error:
        raise _explain(parsed, error) from None


def upgrade_schema(url: str) -> tuple[str, str]:
    """Brings a database of an older Optuna to the schema of the installed one.

    Args:
        url: As :func:`open_storage` takes it.

    Returns:
        The schema's version before and now.

    Raises:
        StorageError: If the database cannot be opened or upgraded, or is of a newer Optuna.
    """
    parsed = _parse(url)
    if parsed.drivername == "grpc":
        raise StorageError(f"{safe_url(parsed)} is a proxy: give the database that it serves")
    _check_sqlite_file(parsed, must_exist=True)
    kwargs = _engine_kwargs(parsed)
    try:
        if not _find_schema(parsed, kwargs, must_exist=True):
            raise StorageError(f"the database {safe_url(parsed)} holds tables of another kind: give another one")
        storage = RDBStorage(
            _optuna_url(parsed), engine_kwargs=kwargs, skip_compatibility_check=True, skip_table_creation=True
        )
        current, head = storage.get_current_version(), storage.get_head_version()
        if current != head:
            if current not in storage.get_all_versions():
                raise StorageError(
                    f"the database {safe_url(parsed)} has Optuna's schema {current}, which optuna {optuna.__version__} "
                    "does not know: run `pip install -U optuna`"
                )
            storage.upgrade()
        storage.engine.dispose()
    except (SQLAlchemyError, OptunaError, ImportError, OSError, TypeError) as error:
        raise _explain(parsed, error) from None
    return current, head


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise StorageError(f"'{safe_url(url)}' is not a storage URL: write {_KINDS}") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine_kwargs(url: URL) -> dict[str, Any]:
    kwargs: dict[str, Any] = {"plugins": [PLUGIN]}
    backend = url.get_backend_name()
    if backend == "sqlite":
        if "timeout" not in url.query:
            kwargs["connect_args"] = {"timeout": BUSY_TIMEOUT}
        return kwargs
    # Optuna holds a connection only for the length of a transaction: few serve many threads, and a server's
    # connections are shared by all workers.
    kwargs |= {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 14, "pool_recycle": 1800}
    if url.drivername in ("postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql", "mysql+mysqldb"):
        options = {"connect_timeout": CONNECT_TIMEOUT}
        if url.drivername == "mysql+pymysql":
            # Without, a server that vanished is waited for for ever; above what a row lock may take (50 s).
            options |= {"read_timeout": 120, "write_timeout": 120}
        if backend == "postgresql":
            options |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
        kwargs["connect_args"] = {key: value for key, value in options.items() if key not in url.query}
    return kwargs


def _sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite URL, or None for a database in memory and for servers."""
    name = url.database or ":memory:"
    if url.get_backend_name() != "sqlite" or ":memory:" in name or url.query.get("mode") == "memory":
        return None
    return Path(name.removeprefix("file:"))


def _check_sqlite_file(url: URL, must_exist: bool) -> Path | None:
    """Find what is wrong with the file before SQLite touches it: it would create the file, and explain nothing."""
    file = _sqlite_file(url)
    if file is None:
        return None
    if file.exists():
        if not file.is_file():
            raise StorageError(f"the storage {file} is not a file: give a file, such as sqlite:///{file}/aes.db")
        if url.query.get("mode") != "ro" and not (
            os.access(file, os.W_OK) and os.access(file.absolute().parent, os.W_OK)
        ):
            raise StorageError(f"the storage {file} cannot be written: SQLite needs to write the file and its folder")
        # Its first bytes are for SQLite alone to look at. A file that is closed takes all of this process's locks on it along,
        # those of open connections too; another process that ends then believes to be the last, and deletes the log of what
        # is not written back yet: the database is malformed (https://www.sqlite.org/howtocorrupt.html, 2.2).
        if not os.access(file, os.R_OK):
            raise StorageError(f"the storage {file} cannot be read: allow it, or give another file")
    elif must_exist:
        raise StorageError(f"the storage {file} does not exist: check the path, or create a study in it first")
    else:
        folder = file.absolute().parent
        if not folder.is_dir():
            raise StorageError(f"the folder {folder} of the storage {file.name} does not exist: create it first")
        if not os.access(folder, os.W_OK):
            raise StorageError(f"the storage {file} cannot be created: the folder {folder} cannot be written")
    return file


def _until(deadline: float, attempt: Callable[[], T]) -> T:
    """Does something that needs the database, again while that cannot be reached and the time has not come."""
    tries = 0
    while True:
        try:
            return attempt()
        except (SQLAlchemyError, OptunaError) as error:
            if not is_unavailable(error) or time.monotonic() >= deadline:
                raise
            time.sleep(pause(tries))
            tries += 1


def _find_schema(url: URL, kwargs: dict[str, Any], must_exist: bool) -> bool:
    """Whether Optuna's tables are there. Looks only, so that a foreign or outdated database stays as it is."""
    engine = create_engine(url, **kwargs)
    try:
        tables = set(inspect(engine).get_table_names())
    finally:
        engine.dispose()
    if "alembic_version" in tables and "version_info" not in tables:
        raise StorageError(
            f"the database {safe_url(url)} belongs to another program, which keeps a version in the same table as "
            "Optuna: give the studies a database of their own"
        )
    if must_exist and "studies" not in tables:
        raise StorageError(f"the database {safe_url(url)} holds no studies: check the URL, or create a study first")
    return {"studies", "version_info", "alembic_version"} <= tables


def _optuna_url(url: URL) -> str:
    """The URL as RDBStorage wants it: it passes the string through ``str.format``."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _open(url: str, *, create: bool, **kwargs: Any) -> BulkStorage:
    def make() -> BulkStorage:
        # Where tables are there, we compare the version before any is added; Optuna would do it after.
        return BulkStorage(url, skip_table_creation=not create, skip_compatibility_check=True, **kwargs)

    storage = retry_races(make)
    current, head = storage.get_current_version(), storage.get_head_version()
    if current == head:
        return storage
    known = current in storage.get_all_versions()
    storage.engine.dispose()
    todo = "run `optuna-aes storage upgrade --storage URL`" if known else "run `pip install -U optuna`"
    raise StorageError(
        f"the database {safe_url(storage.url)} has Optuna's schema {current}, and optuna {optuna.__version__} "
        f"needs {head}: {todo}, or give another database"
    )


def _explain(url: URL, error: Exception) -> StorageError:
    name, backend = safe_url(url), url.get_backend_name()
    if isinstance(error, NoSuchModuleError):
        return StorageError(f"the storage {name} is of a kind that SQLAlchemy does not know: write {_KINDS}")
    if isinstance(error, ImportError):
        todo = {
            "postgresql": 'pip install "optuna-aes[postgres]"',
            "mysql": 'pip install "optuna-aes[mysql]", and write mysql+pymysql://...',
        }.get(backend, f"install the driver of {url.drivername}")
        return StorageError(f"the storage {name} needs a driver that is not installed: {todo}")
    what = one_line(error, url)
    if backend == "sqlite" and "file is not a database" in what:
        return StorageError(
            f"the storage {name} cannot be opened: it is not a SQLite database, or it is damaged: give another file"
        )
    if backend == "sqlite":
        return StorageError(f"the storage {name} cannot be opened: {what}")
    return StorageError(
        f"the storage {name} cannot be opened: {what}; check that the server runs, and host, port, user, password and "
        "database in the URL"
    )


def _remove_if_empty(file: Path | None) -> None:
    """Remove the file that a failed creation left, unless another process has begun to fill it."""
    if file is not None and file.is_file() and file.stat().st_size == 0:
        file.unlink()
