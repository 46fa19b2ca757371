from __future__ import annotations

import io
import os
import pickle
from datetime import datetime, timedelta, timezone
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.artifacts import download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from optuna_aes.errors import StorageError
from optuna_aes.storage import DamagedArtifactError, RDBArtifactStore
from optuna_aes.storage.artifacts import CHUNK_BYTES


@pytest.fixture
def store(storage_url: str) -> RDBArtifactStore:
    return RDBArtifactStore(storage_url)


def execute(store: RDBArtifactStore, sql: str) -> int:
    with store._storage.engine.begin() as connection:
        return connection.exec_driver_sql(sql).rowcount


def rows(store: RDBArtifactStore) -> list[int]:
    with store._storage.engine.connect() as connection:
        tables = ("aes_blobs", "aes_blob_chunks")
        return [connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in tables]


class Trickle(io.RawIOBase):
    """Gives less than it is asked for, as a network does, and may break off."""

    def __init__(self, size: int, *, breaks_at: int | None = None) -> None:
        self.left, self.breaks_at = size, breaks_at

    def read(self, size: int = -1) -> bytes:
        if self.breaks_at is not None and self.left <= self.breaks_at:
            raise OSError("the line is dead")
        part = min(size, self.left, 300_000)
        self.left -= part
        return b"x" * part


def test_round_trip(store: RDBArtifactStore) -> None:
    for size in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17):
        content = os.urandom(size)
        store.write("a", io.BytesIO(content))
        assert rows(store) == [1, -(-size // CHUNK_BYTES)]
        with store.open_reader("a") as reader:
            assert reader.read() == content
        with store.open_reader("a") as reader:
            assert b"".join(iter(lambda reader=reader: reader.read(100_001), b"")) == content
        store.remove("a")
        assert rows(store) == [0, 0]


def test_short_reads_are_gathered(store: RDBArtifactStore) -> None:
    store.write("a", Trickle(2 * CHUNK_BYTES + 5))
    assert rows(store) == [1, 3]
    assert store.open_reader("a").read() == b"x" * (2 * CHUNK_BYTES + 5)


def test_write_replaces(store: RDBArtifactStore) -> None:
    store.write("a", io.BytesIO(b"1" * (CHUNK_BYTES + 1)))
    store.write("a", io.BytesIO(b"2"))
    assert store.open_reader("a").read() == b"2"
    assert rows(store) == [1, 1]


def test_interrupted_write_leaves_nothing(store: RDBArtifactStore) -> None:
    with pytest.raises(OSError, match="the line is dead"):
        store.write("a", Trickle(3 * CHUNK_BYTES, breaks_at=CHUNK_BYTES))
    assert rows(store) == [0, 0]
    with pytest.raises(ArtifactNotFound):
        store.open_reader("a")


def test_interrupted_replacement_keeps_the_old(store: RDBArtifactStore) -> None:
    store.write("a", io.BytesIO(b"old"))
    with pytest.raises(OSError, match="the line is dead"):
        store.write("a", Trickle(3 * CHUNK_BYTES, breaks_at=CHUNK_BYTES))
    assert store.open_reader("a").read() == b"old"


def test_missing(store: RDBArtifactStore) -> None:
    for _ in range(2):  # before and after there are tables
        with pytest.raises(ArtifactNotFound, match="no artifact nosuch"):
            store.open_reader("nosuch")
        with pytest.raises(ArtifactNotFound, match="no artifact nosuch"):
            store.remove("nosuch")
        store.write("a", io.BytesIO(b""))


def test_reading_creates_no_table(store: RDBArtifactStore) -> None:
    with pytest.raises(ArtifactNotFound):
        store.open_reader("a")
    assert not [name for name in sa.inspect(store._storage.engine).get_table_names() if name.startswith("aes_")]


def test_damage_is_found(store: RDBArtifactStore) -> None:
    content = os.urandom(3 * CHUNK_BYTES)
    for damage in (
        "DELETE FROM aes_blob_chunks WHERE number = 1",
        "DELETE FROM aes_blob_chunks WHERE number = 2",
        "UPDATE aes_blob_chunks SET data = (SELECT data FROM aes_blob_chunks WHERE number = 0) WHERE number = 1",
        "UPDATE aes_blobs SET size = size - 1",
    ):
        store.write("a", io.BytesIO(content))
        assert execute(store, damage) == 1
        with store.open_reader("a") as reader, pytest.raises(DamagedArtifactError, match="artifact a is damaged"):
            reader.read(len(content))  # not one byte beyond the end is asked for


def test_database_errors_are_one_line(store: RDBArtifactStore) -> None:
    store.write("a", io.BytesIO(b"x"))
    execute(store, "DROP TABLE aes_blobs")
    with pytest.raises(StorageError, match="cannot read artifact a in") as caught:
        store.open_reader("a")
    assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="1 to 255 characters"):
        store.write("", io.BytesIO(b""))


def test_optuna_uploads_and_downloads(store: RDBArtifactStore, tmp_path: Path) -> None:
    study = optuna.create_study(storage=store._storage)
    (tmp_path / "a.bin").write_bytes(os.urandom(CHUNK_BYTES + 5))
    name = upload_artifact(artifact_store=store, file_path=str(tmp_path / "a.bin"), study_or_trial=study)
    download_artifact(artifact_store=store, artifact_id=name, file_path=str(tmp_path / "b.bin"))
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_lists_what_it_holds(store: RDBArtifactStore) -> None:
    assert list(store.stored()) == []  # and no table yet
    before = datetime.now(timezone.utc)
    for name, size in (("aes-1", 3), ("aes_1", 4), ("b", CHUNK_BYTES + 1)):
        store.write(name, io.BytesIO(b"x" * size))
    assert [(a.name, a.bytes) for a in store.stored()] == [("aes-1", 3), ("aes_1", 4), ("b", CHUNK_BYTES + 1)]
    assert [a.name for a in store.stored("aes_")] == ["aes_1"]
    assert all(abs(a.written - before) < timedelta(seconds=30) for a in store.stored())


def test_pickles(store: RDBArtifactStore) -> None:
    store.write("a", io.BytesIO(b"x"))
    assert pickle.loads(pickle.dumps(store)).open_reader("a").read() == b"x"
