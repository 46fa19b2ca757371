"""Datasets that lie in an object store: fetched once, whole, and known by their fingerprint."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import tiny_dataset

from optuna_aes.data import Dataset
from optuna_aes.data.dataset import DATASET_FILES
from optuna_aes.errors import DataError, StorageError
from optuna_aes.storage import _s3
from optuna_aes.storage.remote import open_dataset_at

URL = "s3://checkpoints/tables/clicks"


@pytest.fixture
def client(bucket: str) -> Any:
    import boto3

    return boto3.client("s3")


@pytest.fixture
def stored(client: Any, bucket: str, tmp_path: Path) -> Dataset:
    """A dataset in the bucket, with a vocabulary, and with other things around it."""
    dataset = tiny_dataset().save(tmp_path / "clicks")
    (tmp_path / "clicks/encoder.json").write_text("{}")
    for path in (tmp_path / "clicks").iterdir():
        client.upload_file(str(path), bucket, f"tables/clicks/{path.name}")
    for other in ("tables/clicks/notes/of-ours.txt", "tables/clicks2/schema.json"):
        client.put_object(Bucket=bucket, Key=other, Body=b"x")
    return dataset


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were fetched, one after the other."""
    found, copy_to = list[str](), _s3.S3Store.copy_to

    def counting(store: _s3.S3Store, path: Path, artifact_id: str, fetched: Any) -> None:
        found.append(path.name)
        copy_to(store, path, artifact_id, fetched)

    monkeypatch.setattr(_s3.S3Store, "copy_to", counting)
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_it_is_fetched_once_and_is_the_same(stored: Dataset, fetches: list[str], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    cache = tmp_path / "cache/of/mine"
    found = open_dataset_at(URL + "/", cache_dir=cache, progress=lambda done, total: told.append((done, total)))
    assert (found.fingerprint, found.origin) == (stored.fingerprint, URL)
    assert (found.train.ids == stored.train.ids).all()
    assert found.folder == cache / stored.fingerprint
    assert names(cache) == [stored.fingerprint]
    assert names(found.folder) == sorted([*DATASET_FILES, "encoder.json"])
    assert told[-1] == (told[0][1],) * 2 == (sum(p.stat().st_size for p in found.folder.iterdir()),) * 2
    assert len(fetches) == 8
    again = open_dataset_at(URL, cache_dir=cache, fingerprint=stored.fingerprint)
    assert (again.folder, len(fetches)) == (found.folder, 8)


def test_of_many_at_once_one_fetches_and_the_others_wait(
    stored: Dataset, fetches: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, notes, copy_to = threading.Event(), list[str](), _s3.S3Store.copy_to

    def slow(*arguments: Any) -> None:
        assert waiting.wait(30)  # until another one has found that it comes too late
        copy_to(*arguments)

    def note(text: str) -> None:
        notes.append(text)
        waiting.set()

    monkeypatch.setattr(_s3.S3Store, "copy_to", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_dataset_at(URL, cache_dir=tmp_path / "cache", note=note), range(4)))
    assert {d.folder for d in found} == {tmp_path / "cache" / stored.fingerprint}
    assert len(fetches) == 8
    assert 1 <= len(notes) <= 3
    assert "another process fetches s3://checkpoints/tables/clicks" in notes[0]


def test_half_of_it_is_never_used(
    stored: Dataset, fetches: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, copy_to = tmp_path / "cache", _s3.S3Store.copy_to

    def breaks(store: _s3.S3Store, path: Path, artifact_id: str, fetched: Any) -> None:
        if path.name == "valid_ids.npy":
            path.write_bytes(b"\x93NUMPY")
            raise StorageError("the line is dead")
        copy_to(store, path, artifact_id, fetched)

    with monkeypatch.context() as patch:
        patch.setattr(_s3.S3Store, "copy_to", breaks)
        with pytest.raises(StorageError, match="the line is dead"):
            open_dataset_at(URL, cache_dir=cache)
    assert names(cache) == []
    # One that was killed leaves its part behind, which the next one clears away.
    (cache / f".{stored.fingerprint}-0badf00d").mkdir()
    assert open_dataset_at(URL, cache_dir=cache).fingerprint == stored.fingerprint
    assert names(cache) == [stored.fingerprint]
    # And a copy that was damaged later is fetched anew.
    (cache / stored.fingerprint / "train_ids.npy").write_bytes(b"")
    assert len(open_dataset_at(URL, cache_dir=cache).train) == len(stored.train)


def test_what_is_another_or_damaged_is_refused(
    stored: Dataset, client: Any, bucket: str, fetches: list[str], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(
        DataError, match=f"fingerprint of {URL} is {stored.fingerprint}, and the search was made with 0"
    ):
        open_dataset_at(URL, cache_dir=cache, fingerprint="0")
    assert fetches == []
    with pytest.raises(DataError, match="was made with 0"):
        open_dataset_at(str(stored.folder), fingerprint="0")
    ids = np.array(stored.train.ids)
    ids[0, 0] ^= 1
    np.save(tmp_path / "other.npy", ids)
    client.upload_file(str(tmp_path / "other.npy"), bucket, "tables/clicks/train_ids.npy")
    with pytest.raises(DataError, match="damaged, its rows do not have the fingerprint"):
        open_dataset_at(URL, cache_dir=cache)
    client.delete_object(Bucket=bucket, Key="tables/clicks/test_ids.npy")
    with pytest.raises(DataError, match=r"there is no test_ids\.npy in it"):
        open_dataset_at(URL, cache_dir=cache)
    client.put_object(Bucket=bucket, Key="tables/clicks/schema.json", Body=b"[]")
    with pytest.raises(DataError, match="is no encoded dataset"):
        open_dataset_at(URL, cache_dir=cache)
    assert names(cache) == []


def test_what_is_no_place(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, said in {
        "s3://checkpoints": r"must be a folder in a bucket: s3://BUCKET/FOLDER",
        "s3://checkpoints/nothing": r"there is no schema\.json in it",
        "s3://elsewhere/x": r"the dataset's bucket s3://elsewhere does not exist",
        "gs://a:b@c/d": r"gs://\.\.\. is of an unknown kind",
        f"{tmp_path}/nothing": "is not an encoded dataset",
    }.items():
        with pytest.raises((DataError, StorageError), match=said) as caught:
            open_dataset_at(place, cache_dir=tmp_path)
        assert "\n" not in str(caught.value)
    monkeypatch.delitem(sys.modules, "optuna_aes.storage._s3", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(StorageError, match="needs boto3: pip install"):
        open_dataset_at(URL)


def test_a_folder_and_a_file_url(tmp_path: Path) -> None:
    dataset = tiny_dataset().save(tmp_path / "my clicks")
    for place in (str(tmp_path / "my clicks"), f"file://{tmp_path}/my%20clicks"):
        found = open_dataset_at(place, fingerprint=dataset.fingerprint)
        assert (found.fingerprint, found.origin) == (dataset.fingerprint, None)


def test_a_cache_that_cannot_be_written(stored: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another folder with --cache"):
        open_dataset_at(URL, cache_dir=tmp_path / "file/cache")
