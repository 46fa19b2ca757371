from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, download_artifact, upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound

from optuna_aes.errors import StorageError
from optuna_aes.storage import RDBArtifactStore, check_artifacts, open_artifact_store, open_storage

SPEC = {
    "folder": "{folder}/a/b",
    "url": "file://{folder}/a/b",
    "s3": "s3://checkpoints",
    "s3 slash": "s3://checkpoints/",
}


@pytest.fixture
def storage(tmp_path: Path) -> Any:
    return open_storage(f"sqlite:///{tmp_path}/aes.db")


@pytest.fixture(params=SPEC)
def spec(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return SPEC[request.param].format(folder=tmp_path)


@pytest.fixture
def store(spec: str, storage: Any) -> Any:
    check_artifacts(spec)
    return open_artifact_store(spec, storage)


def test_the_database_is_the_default(storage: Any) -> None:
    check_artifacts(None)
    assert isinstance(open_artifact_store(None, storage), RDBArtifactStore)


def test_a_round_trip(store: Any) -> None:
    for size in (0, 1, 2**20, 3 * 2**20 + 17):
        content = os.urandom(size)
        store.write("a", io.BytesIO(content))
        with store.open_reader("a") as reader:
            assert reader.read() == content
        with store.open_reader("a") as reader:
            assert b"".join(iter(lambda reader=reader: reader.read(100_001), b"")) == content
    store.remove("a")
    with pytest.raises(ArtifactNotFound):
        store.open_reader("a")


def test_what_it_lists(store: Any) -> None:
    for name in ("aes-1", "aes-2", "other"):
        store.write(name, io.BytesIO(name.encode()))
    assert sorted((a.name, a.bytes) for a in store.stored("aes-")) == [("aes-1", 5), ("aes-2", 5)]
    assert sorted(a.name for a in store.stored()) == ["aes-1", "aes-2", "other"]
    assert all(abs(a.written.timestamp() - time.time()) < 60 for a in store.stored())


def test_optunas_own_calls(store: Any, storage: Any, tmp_path: Path) -> None:
    study = optuna.create_study(storage=storage)
    (tmp_path / "a.bin").write_bytes(os.urandom(100_000))
    name = upload_artifact(artifact_store=store, file_path=str(tmp_path / "a.bin"), study_or_trial=study)
    download_artifact(artifact_store=store, artifact_id=name, file_path=str(tmp_path / "b.bin"))
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_a_folder_stays_the_same_when_the_process_moves(
    storage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_artifact_store("plain/folder", storage)
    assert isinstance(store, FileSystemArtifactStore)
    monkeypatch.chdir("/")
    store.write("a", io.BytesIO(b"x"))
    assert (tmp_path / "plain/folder/a").read_bytes() == b"x"


def test_a_file_is_whole_or_not_there(storage: Any, tmp_path: Path) -> None:
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            parts = {p.name for p in tmp_path.glob("blobs/.part-*")}
            assert len(parts) == 1
            assert {p.name for p in tmp_path.glob("blobs/*")} == parts | kept
            data = super().read(10)
            if not data:
                raise OSError(28, "No space left on device")
            return data

    store, kept = open_artifact_store(f"{tmp_path}/blobs", storage), set[str]()
    with pytest.raises(OSError, match="No space left"):
        store.write("a", Breaks(b"new content"))
    assert list(tmp_path.glob("blobs/*")) == []
    store.write("a", io.BytesIO(b"old"))
    kept = {"a"}
    with pytest.raises(OSError, match="No space left"):
        store.write("a", Breaks(b"new content"))
    assert [p.name for p in tmp_path.glob("blobs/*")] == ["a"]
    assert store.open_reader("a").read() == b"old"


def test_what_cannot_be_a_place(storage: Any, tmp_path: Path) -> None:
    for look in (lambda spec: open_artifact_store(spec, storage), check_artifacts):
        with pytest.raises(StorageError, match=r"cannot be (created|used)"):
            look(f"{tmp_path}/aes.db/folder")
        with pytest.raises(StorageError, match="unknown kind: give a folder or s3://BUCKET") as caught:
            look("ftp://u:hunter2@host/x")
        assert "hunter2" not in str(caught.value)
        with pytest.raises(StorageError, match="a bucket alone"):
            look("s3://bucket/folder")


def test_without_boto3(storage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "optuna_aes.storage._s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StorageError, match="needs boto3: pip install"):
        check_artifacts("s3://bucket")


def test_a_bucket_that_is_not_there(bucket: str, storage: Any) -> None:
    with pytest.raises(StorageError, match="s3://elsewhere does not exist: create the bucket"):
        check_artifacts("s3://elsewhere")
    store = open_artifact_store("s3://elsewhere", storage)
    for action in (
        lambda: store.write("a", io.BytesIO(b"x")),
        lambda: store.remove("a"),
        lambda: list(store.stored()),  # type: ignore[attr-defined]
    ):
        with pytest.raises(
            StorageError, match=r"s3://elsewhere cannot be \w+.*NoSuchBucket.*; check the bucket, and region"
        ):
            action()


def test_an_endpoint_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://someone:hunter2@127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(StorageError, match="s3://checkpoints cannot be used: Could not connect") as caught:
        check_artifacts("s3://checkpoints")
    assert time.monotonic() - started < 10
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_that_breaks_off(bucket: str) -> None:
    import boto3
    from botocore.exceptions import ResponseStreamingError

    from optuna_aes.storage._s3 import S3Store

    class Client:
        def get_object(self, **kwargs: Any) -> dict[str, Any]:
            return {"Body": self}

        def read(self, size: int) -> bytes:
            raise ResponseStreamingError(error="the line is dead")

        def close(self) -> None:
            pass

    boto3.client("s3").put_object(Bucket=bucket, Key="a", Body=b"x")
    assert S3Store(bucket).open_reader("a").read() == b"x"
    with pytest.raises(StorageError, match=r"cannot be read: .*the line is dead"):
        S3Store(bucket, Client()).open_reader("a").read()
