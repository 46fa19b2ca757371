"""Which workers are there: each writes itself into a table of ours, and signs now and then by the database's clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.storages import RDBStorage

from optuna_aes.storage._rdb import retry_races
from optuna_aes.storage.workers import died_here, worker_identity

EVERY = 10.0  # seconds between two signs
GONE = 60.0  # seconds without one
FORGOTTEN = 86_400.0  # seconds after which a worker that never said goodbye is taken off the list

_METADATA = sa.MetaData()
_WORKERS = sa.Table(
    "aes_workers",
    _METADATA,
    sa.Column("worker_id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(512), nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("since", sa.DateTime, nullable=False, server_default=sa.func.current_timestamp()),
    sa.Column("seen", sa.DateTime, nullable=False, server_default=sa.func.current_timestamp()),
)


@dataclass(frozen=True)
class Presence:
    """One worker of a search.

    Args:
        identity: See :func:`optuna_aes.storage.worker_identity`.
        device: Where it computes.
        seconds: Since it began.
        silent: Seconds since its last sign of life.
        alive: Whether it is taken to be alive.
    """

    identity: dict[str, Any]
    device: str
    seconds: float
    silent: float
    alive: bool


@contextmanager
def present(storage: RDBStorage, study: str, device: str) -> Iterator[None]:
    """Within the block this process is on the list of the workers of a search.

    The list is for people to look at. No work depends on it: where it cannot be written, nothing is said.

    Args:
        storage: The search's storage.
        study: Its name.
        device: Where this worker computes.
    """
    ended, row = threading.Event(), list[int]()
    facts = json.dumps({**worker_identity(), "device": device})

    def sign() -> None:
        with suppress(Exception):
            if not row:
                row.append(_enter(storage, study, facts))
            change = sa.update(_WORKERS).where(_WORKERS.c.worker_id == row[0])
            with storage.engine.begin() as connection:
                connection.execute(change.values(seen=sa.func.current_timestamp()))

    def keep_signing() -> None:
        sign()
        while not ended.wait(EVERY):
            sign()

    # In memory every thread would have a database of its own, and behind a proxy there is none to write to.
    in_memory = ":memory:" in storage.url or storage.url.rstrip("/") == "sqlite:"
    if in_memory or not isinstance(storage, RDBStorage):
        yield
        return
    thread = threading.Thread(target=keep_signing, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        with suppress(Exception), storage.engine.begin() as connection:
            connection.execute(sa.delete(_WORKERS).where(_WORKERS.c.worker_id.in_(row)))


def workers_of(storage: RDBStorage, study: str) -> list[Presence]:
    """The workers of a search that are there, or went without a word a while ago; oldest first."""
    if not isinstance(storage, RDBStorage) or not sa.inspect(storage.engine).has_table(_WORKERS.name):
        return []
    query = sa.select(_WORKERS, sa.func.current_timestamp().label("now")).where(_WORKERS.c.study == study)
    with storage.engine.connect() as connection:
        rows = connection.execute(query.order_by(_WORKERS.c.worker_id)).all()
    found = []
    for row in rows:
        facts, now = json.loads(row.facts), row.now.replace(tzinfo=None)
        silent = (now - row.seen).total_seconds()
        alive = silent < GONE and not died_here(facts)
        found.append(Presence(facts, facts.pop("device"), (now - row.since).total_seconds(), silent, alive))
    return found


def _enter(storage: RDBStorage, study: str, facts: str) -> int:
    """Puts a worker on the list, and takes those off that nobody has heard of for long."""
    if not sa.inspect(storage.engine).has_table(_WORKERS.name):
        retry_races(lambda: _METADATA.create_all(storage.engine))
    with storage.engine.begin() as connection:
        now = connection.execute(sa.select(sa.func.current_timestamp())).scalar_one().replace(tzinfo=None)
        old = [
            row.worker_id
            for row in connection.execute(sa.select(_WORKERS.c.worker_id, _WORKERS.c.seen))
            if (now - row.seen).total_seconds() > FORGOTTEN
        ]
        connection.execute(sa.delete(_WORKERS).where(_WORKERS.c.worker_id.in_(old)))
        inserted = connection.execute(sa.insert(_WORKERS).values(study=study, facts=facts))
        return int((inserted.inserted_primary_key or (0,))[0])
