"""Encoded datasets by their place: a folder, or an object store, of which one copy is fetched for all workers of a machine."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout
from optuna.artifacts.exceptions import ArtifactNotFound

from optuna_aes.data.dataset import DATASET_FILES, SCHEMA, SPLITS, Dataset, atomic_folder, content_fingerprint
from optuna_aes.data.encoder import ENCODER_FILES
from optuna_aes.errors import DataError
from optuna_aes.storage.places import S3_SCHEME, s3_store

if TYPE_CHECKING:
    from optuna_aes.storage._s3 import S3Store

CACHE = ".optuna_aes/datasets"  # where copies are kept, and tables that were encoded here

Note = Callable[[str], None]
Fetched = Callable[[int, int], None]


def is_remote(place: str) -> bool:
    """Whether a place is in an object store."""
    return place.startswith(S3_SCHEME)


def open_dataset_at(
    place: str,
    *,
    cache_dir: str | Path = CACHE,
    fingerprint: str | None = None,
    note: Note = lambda _: None,
    progress: Fetched = lambda done, total: None,
) -> Dataset:
    """Opens an encoded dataset wherever it lies.

    One in an object store is fetched first, once for all processes that share ``cache_dir``. The copy is named after its
    fingerprint, and is there only when it is whole and its content was found to have that fingerprint.

    Args:
        place: A folder (a path or ``file:///…``), or ``s3://BUCKET/FOLDER``.
        cache_dir: Where copies are kept.
        fingerprint: What the dataset must have; of one that has another nothing is fetched.
        note: Hears when another process fetches it, which is waited for.
        progress: Hears how many bytes of how many are fetched, from several threads.

    Raises:
        DataError: If it is no encoded dataset, or another one, or the copy cannot be written.
        StorageError: If the object store cannot be read.
    """
    if is_remote(place):
        return _opened(place.rstrip("/"), Path(cache_dir).expanduser(), fingerprint, note, progress)
    scheme, found, _ = place.partition("://")
    if found and scheme != "file":
        raise DataError(f"the dataset {scheme}://... is of an unknown kind: give a folder or s3://BUCKET/FOLDER")
    dataset = Dataset.open(unquote(urlsplit(place).path) if found else Path(place).expanduser())
    check_fingerprint(place, dataset.fingerprint, fingerprint)
    return dataset


def _opened(url: str, cache_dir: Path, wanted: str | None, note: Note, progress: Fetched) -> Dataset:
    bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
    if not bucket or not prefix:
        raise DataError(f"the dataset {url} must be a folder in a bucket: s3://BUCKET/FOLDER")
    store = s3_store(bucket, "dataset's bucket")
    store.check()
    fingerprint = _fingerprint(store, prefix, url)
    check_fingerprint(url, fingerprint, wanted)
    folder = cache_dir / fingerprint
    with _only_one(folder, lambda: note(f"another process fetches {url}: waiting for it")):
        if not _is_whole(folder, fingerprint):
            _fetch(store, prefix, url, folder, fingerprint, progress)
    return replace(Dataset.open(folder), origin=url)


def _fingerprint(store: S3Store, prefix: str, url: str) -> str:
    """What the dataset in a bucket says it is."""
    try:
        with store.open_reader(f"{prefix}/{SCHEMA}") as file:
            return str(json.loads(file.read())["fingerprint"])
    except ArtifactNotFound:
        raise DataError(
            f"{url} is no encoded dataset, there is no {SCHEMA} in it: copy an encoded folder there"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{url} is no encoded dataset ({error}): copy an encoded folder there") from None


def check_fingerprint(what: str, fingerprint: str, wanted: str | None) -> None:
    """Refuses a dataset that is not the one a search was made with.

    Raises:
        DataError: If it is another one.
    """
    if wanted not in (None, fingerprint):
        raise DataError(
            f"the fingerprint of {what} is {fingerprint}, and the search was made with {wanted}: give the "
            "dataset that it was made with"
        )


@contextmanager
def _only_one(folder: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Within the block no other process of this machine is in it for the same folder."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.parent / f".{folder.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            wait()
            lock.acquire()
    except OSError as error:
        raise DataError(
            f"cannot write to {folder.parent} ({error.strerror}): choose another folder with --cache"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _is_whole(folder: Path, fingerprint: str) -> bool:
    try:
        return Dataset.open(folder).fingerprint == fingerprint
    except DataError:  # not there, or damaged since
        return False


def _fetch(store: S3Store, prefix: str, url: str, folder: Path, fingerprint: str, progress: Fetched) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):  # of one that was killed: nobody else is here
        shutil.rmtree(left, ignore_errors=True)
    there = {found.name.removeprefix(f"{prefix}/"): found.bytes for found in store.stored(f"{prefix}/")}
    missing = [name for name in DATASET_FILES if name not in there]
    if missing:
        raise DataError(f"{url} is no encoded dataset, there is no {missing[0]} in it: copy the whole folder there")
    names = [name for name in (*DATASET_FILES, *ENCODER_FILES) if name in there]
    told = _Sum(sum(there[name] for name in names), progress)
    with atomic_folder(folder) as partial:
        for name in names:
            store.copy_to(partial / name, f"{prefix}/{name}", told.add)
        copy = Dataset.open(partial)
        if content_fingerprint(copy.schema, {name: getattr(copy, name) for name in SPLITS}) != fingerprint:
            raise DataError(
                f"{url} is damaged, its rows do not have the fingerprint {fingerprint}: copy it there again"
            )


class _Sum:
    """Adds up what threads have fetched, and tells of it."""

    def __init__(self, total: int, progress: Fetched) -> None:
        self.total, self.progress = total, progress
        self.done, self.lock = 0, threading.Lock()

    def add(self, count: int) -> None:
        with self.lock:
            self.done += count
            self.progress(self.done, self.total)
