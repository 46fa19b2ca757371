"""Artifacts in the relational database itself, so that workers need nothing shared but the database."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, BinaryIO, Protocol

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.storages import RDBStorage

from optuna_aes.errors import StorageError
from optuna_aes.storage._messages import explained, safe_url
from optuna_aes.storage._outage import outlast
from optuna_aes.storage._rdb import retry_races
from optuna_aes.storage.durable import outage_of
from optuna_aes.storage.engine import open_storage

CHUNK_BYTES = 2**20  # below MySQL's smallest default packet, and little to hold in memory

_METADATA = sa.MetaData()
_BLOBS = sa.Table(
    "aes_blobs",
    _METADATA,
    sa.Column("artifact_id", sa.String(255), primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("created", sa.DateTime, nullable=False),
)
_CHUNKS = sa.Table(
    "aes_blob_chunks",
    _METADATA,
    sa.Column("artifact_id", sa.String(255), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary(CHUNK_BYTES), nullable=False),
)


@dataclass(frozen=True)
class Stored:
    """An artifact as its store lists it: its name, size in bytes, and when it was written (with its time zone)."""

    name: str
    bytes: int
    written: datetime


class Listing(Protocol):
    """What a store can do that is to be tidied up: those of :func:`open_artifact_store` can."""

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Lists the artifacts whose names begin so."""

    def remove(self, artifact_id: str) -> None:
        """Deletes one."""


class DamagedArtifactError(StorageError):
    """An artifact is there, but its content is not what was written."""


class RDBArtifactStore:
    """Keeps artifacts as chunks in two tables (``aes_blobs``, ``aes_blob_chunks``) of the studies' own database.

    An artifact is written in one transaction: readers see all of it or nothing, also after a crash. It is read chunk by
    chunk, and checked against its SHA-256 before the last chunk is handed out. The first write creates the tables.

    Args:
        storage: The storage whose database and connections to use, or a URL for :func:`open_storage`.
    """

    def __init__(self, storage: RDBStorage | str) -> None:
        self._storage = open_storage(storage)
        self._outage = outage_of(self._storage)
        self._has_tables = False

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact for reading from start to end.

        Args:
            artifact_id: The artifact's name.

        Returns:
            A binary stream, not seekable. Its ``read`` raises DamagedArtifactError where the content is not whole.

        Raises:
            ArtifactNotFound: If there is no such artifact.
        """
        query = sa.select(_BLOBS).where(_BLOBS.c.artifact_id == artifact_id)
        found = self._read(f"read artifact {artifact_id}", query)
        if not found:
            raise ArtifactNotFound(f"no artifact {artifact_id} in {safe_url(self._storage.url)}")
        return io.BufferedReader(_BlobReader(self, found[0]), buffer_size=CHUNK_BYTES)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an artifact whole, or not at all. One of the same name is replaced.

        Args:
            artifact_id: The artifact's name, of at most 255 characters.
            content_body: A binary stream, read to its end.

        Raises:
            StorageError: If the database cannot store it.
        """
        if not artifact_id or len(artifact_id) > 255:
            raise StorageError(
                f"an artifact's name has 1 to 255 characters, and {artifact_id!r} has {len(artifact_id)}"
            )
        start = content_body.tell() if content_body.seekable() else None

        def attempt() -> None:
            if start is not None:
                content_body.seek(start)
            with self._storage.engine.begin() as connection:
                _write(connection, artifact_id, content_body)

        with self._errors(f"write artifact {artifact_id}"):
            outlast(self._outage, self._create_tables)
            if start is None:  # what is read of it once is gone
                attempt()
            else:
                outlast(self._outage, attempt)

    def remove(self, artifact_id: str) -> None:
        """Delete an artifact.

        Args:
            artifact_id: The artifact's name.

        Raises:
            ArtifactNotFound: If there is no such artifact.
        """
        tries = 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            if not self._tables_exist():
                return False
            with self._storage.engine.begin() as connection:
                return _delete(connection, artifact_id) > 0

        with self._errors(f"remove artifact {artifact_id}"):
            # Gone at a second try: the first one's answer was lost.
            if not outlast(self._outage, attempt) and tries == 1:
                raise ArtifactNotFound(f"no artifact {artifact_id} in {safe_url(self._storage.url)}")

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Lists the artifacts whose names begin so.

        Raises:
            StorageError: If the database cannot be read.
        """
        blob = _BLOBS.c
        query = sa.select(blob.artifact_id, blob.size, blob.created).order_by(blob.created, blob.artifact_id)
        query = query.where(blob.artifact_id.startswith(prefix, autoescape=True))
        for row in self._read("list artifacts", query):
            yield Stored(row.artifact_id, int(row.size), row.created.replace(tzinfo=timezone.utc))

    def _read_chunk(self, artifact_id: str, number: int) -> bytes:
        where = (_CHUNKS.c.artifact_id == artifact_id) & (_CHUNKS.c.number == number)
        found = self._read(f"read artifact {artifact_id}", sa.select(_CHUNKS.c.data).where(where))
        if not found:
            raise DamagedArtifactError(f"artifact {artifact_id} is damaged: chunk {number} is missing")
        return bytes(found[0].data)

    def _read(self, action: str, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        """Rows of our tables; none where there are no tables yet."""

        def attempt() -> Sequence[sa.Row[Any]]:
            if not self._tables_exist():
                return []
            with self._storage.engine.connect() as connection:
                return connection.execute(query).all()

        with self._errors(action):
            return outlast(self._outage, attempt)

    def _tables_exist(self) -> bool:
        if not self._has_tables:
            self._has_tables = sa.inspect(self._storage.engine).has_table(_CHUNKS.name)
        return self._has_tables

    def _create_tables(self) -> None:
        if not self._tables_exist():
            retry_races(lambda: _METADATA.create_all(self._storage.engine))

    def _errors(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self._storage.engine)


class _BlobReader(io.RawIOBase):
    """Streams one artifact; every chunk is a short read of its own, so that no connection stays open between."""

    def __init__(self, store: RDBArtifactStore, blob: sa.Row[Any]) -> None:
        self._store, self._blob = store, blob
        self._digest = hashlib.sha256()
        self._number, self._size = 0, 0
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and self._number < self._blob.chunks:
            self._rest = memoryview(self._next())
        part = self._rest[: len(buffer)]
        buffer[: len(part)] = part
        self._rest = self._rest[len(part) :]
        return len(part)

    def _next(self) -> bytes:
        data = self._store._read_chunk(self._blob.artifact_id, self._number)
        self._number += 1
        self._size += len(data)
        self._digest.update(data)
        # Checked before the last chunk leaves: a caller that reads exactly the size never asks for the end.
        is_last = self._number == self._blob.chunks
        if is_last and (self._size, self._digest.hexdigest()) != (self._blob.size, self._blob.sha256):
            raise DamagedArtifactError(
                f"artifact {self._blob.artifact_id} is damaged: its content does not match its checksum"
            )
        return data


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    buffer = io.BytesIO()
    while data := body.read(CHUNK_BYTES - buffer.tell()):
        # A stream may give less than it was asked for; tiny chunks would cost a row each.
        buffer.write(data)
        if buffer.tell() >= CHUNK_BYTES:
            yield buffer.getvalue()
            buffer = io.BytesIO()
    if buffer.tell():
        yield buffer.getvalue()


def _write(connection: sa.Connection, artifact_id: str, body: BinaryIO) -> None:
    _delete(connection, artifact_id)
    digest, size, number = hashlib.sha256(), 0, 0
    for number, data in enumerate(_chunks(body), start=1):
        digest.update(data)
        size += len(data)
        connection.execute(sa.insert(_CHUNKS), {"artifact_id": artifact_id, "number": number - 1, "data": data})
    header = {"artifact_id": artifact_id, "size": size, "sha256": digest.hexdigest(), "chunks": number}
    created = datetime.now(timezone.utc).replace(tzinfo=None)
    connection.execute(sa.insert(_BLOBS), {**header, "created": created})


def _delete(connection: sa.Connection, artifact_id: str) -> int:
    connection.execute(sa.delete(_CHUNKS).where(_CHUNKS.c.artifact_id == artifact_id))
    return connection.execute(sa.delete(_BLOBS).where(_BLOBS.c.artifact_id == artifact_id)).rowcount
