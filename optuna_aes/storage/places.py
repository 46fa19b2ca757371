"""Where artifacts can be kept: the studies' own database, a folder, or a bucket of S3."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import RDBStorage

from optuna_aes.errors import StorageError
from optuna_aes.storage.artifacts import RDBArtifactStore, Stored

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

    from optuna_aes.storage._s3 import S3Store

S3_SCHEME = "s3://"

_COPY_BYTES = 2**20
_PARTIAL = ".part-"


class FolderStore(FileSystemArtifactStore):
    """Optuna's store in a folder, with files that are there whole and on the disk, or not at all.

    Args:
        folder: The folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        # Absolute, so that it stays the same folder when the process changes its own.
        super().__init__(folder.absolute())

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores an artifact; one of the same name is replaced.

        Raises:
            OSError: If it cannot be written; the earlier one stays.
        """
        path = self._get_filepath(artifact_id)
        partial = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
        try:
            with partial.open("wb") as file:
                while data := content_body.read(_COPY_BYTES):
                    file.write(data)
                file.flush()
                # A database names it next, and may be on another disk that a power cut does not touch.
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Lists the files whose names begin so, and what killed writers left of files."""
        for path in sorted(self._base_path.iterdir()):
            if path.name.startswith((prefix, _PARTIAL)) and path.is_file():
                state = path.stat()
                yield Stored(path.name, state.st_size, datetime.fromtimestamp(state.st_mtime, timezone.utc))


def open_artifact_store(spec: str | None, storage: RDBStorage) -> ArtifactStore:
    """Open the place where checkpoints and other artifacts are kept.

    Args:
        spec: None for the studies' own database, a folder (a path or ``file:///…``, created if need be), or
            ``s3://BUCKET``.
        storage: The studies' storage.

    Raises:
        StorageError: If the place cannot be used.
    """
    if spec is None:
        if not isinstance(storage, RDBStorage):
            raise StorageError(
                "this storage is no database that checkpoints could lie in: give a place for them, --artifacts FOLDER or "
                "s3://BUCKET, that all workers see"
            )
        return RDBArtifactStore(storage)
    scheme, found, rest = spec.partition("://")
    if not found:
        return _folder_store(Path(spec))
    if scheme == "file":
        return _folder_store(Path(unquote(urlsplit(spec).path)))
    if scheme == "s3":
        return _bucket_store(rest)
    raise _unknown_kind(scheme)


def check_artifacts(spec: str | None) -> None:
    """Finds out whether :func:`open_artifact_store` would succeed, and creates nothing.

    Raises:
        StorageError: If the place cannot be used.
    """
    if spec is None:
        return
    scheme, found, rest = spec.partition("://")
    if found and scheme == "s3":
        _bucket_store(rest).check()
        return
    if found and scheme != "file":
        raise _unknown_kind(scheme)
    folder = (Path(unquote(urlsplit(spec).path)) if found else Path(spec)).absolute()
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written" if there.is_dir() else "is not a folder"
        raise StorageError(f"the artifact folder {folder} cannot be used: {there} {why}")


def _unknown_kind(scheme: str) -> StorageError:
    return StorageError(f"the artifact store '{scheme}://...' is of an unknown kind: give a folder or s3://BUCKET")


def _folder_store(folder: Path) -> FolderStore:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"the artifact folder {folder} cannot be created: {error.strerror}") from None
    return FolderStore(folder)


def _bucket_store(bucket: str) -> S3Store:
    bucket = bucket.rstrip("/")
    if not bucket or "/" in bucket:
        raise StorageError(f"the artifact store s3://{bucket} must be a bucket alone, without a path: s3://BUCKET")
    return s3_store(bucket)


def s3_store(bucket: str, role: str = "artifact store") -> S3Store:
    """A bucket of S3.

    Args:
        bucket: Its name.
        role: What errors call it.

    Raises:
        StorageError: If boto3 is not installed.
    """
    try:
        from optuna_aes.storage._s3 import S3Store
    except ImportError:
        raise StorageError(
            f'the {role} s3://{bucket} needs boto3: pip install "optuna-aes[s3]", or pip install boto3'
        ) from None
    return S3Store(bucket, role=role)
