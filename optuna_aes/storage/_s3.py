"""Artifacts in a bucket of S3, or of what speaks its language (``AWS_ENDPOINT_URL``), through Optuna's own store."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from optuna.artifacts import Boto3ArtifactStore

from optuna_aes.errors import StorageError
from optuna_aes.storage.artifacts import Stored

# About a minute of pauses that double, as a server takes to come back. Boto3's own default gives up after seconds.
_ATTEMPTS = 8
_TIMEOUT = 30  # seconds until a server that does not answer is asked again

_USER = re.compile(r"://[^/@\s]*@")


class S3Store:
    """Optuna's store of artifacts in a bucket, with errors on one line that say what to do.

    Args:
        bucket: The bucket.
        client: A client of boto3; by default one that boto3 makes from environment and configuration files.
        role: What errors call it.
    """

    def __init__(self, bucket: str, client: Any = None, *, role: str = "artifact store") -> None:
        self.bucket = bucket
        self.title = f"{role} s3://{bucket}"
        with self._explained("used"):
            self._client = client or _client(_ATTEMPTS)
        self._asker = client  # who asks about the bucket itself
        # Without a copy of each blob in memory; our callers open the file they pass for this purpose only.
        self._store = Boto3ArtifactStore(bucket, client=self._client, avoid_buf_copy=True)

    def check(self) -> None:
        """Finds out whether the bucket is there.

        Raises:
            StorageError: If it is not, or cannot be asked.
        """
        with self._explained("used"):
            try:
                # A mistake in the endpoint is told at once; only work that has begun has patience.
                (self._asker or _client(2)).head_bucket(Bucket=self.bucket)
            except ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                if status == 404:
                    raise StorageError(f"the {self.title} does not exist: create the bucket") from None
                if status != 403:  # one may be allowed to read and write, and not to look at the bucket itself
                    raise

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Opens an artifact for reading from start to end.

        Raises:
            ArtifactNotFound: If there is no such artifact.
            StorageError: If the bucket cannot be read.
        """
        with self._explained(f"read ({artifact_id})"):
            return io.BufferedReader(_Body(self, self._store.open_reader(artifact_id)), buffer_size=2**20)

    def copy_to(self, path: Path, artifact_id: str, fetched: Callable[[int], None]) -> None:
        """Copies an artifact to a file, in pieces side by side.

        Args:
            path: The file.
            artifact_id: The artifact.
            fetched: Hears of each so many bytes more, from several threads.

        Raises:
            StorageError: If the bucket cannot be read.
            OSError: If the file cannot be written.
        """
        with self._explained(f"read ({artifact_id})"):
            self._client.download_file(self.bucket, artifact_id, str(path), Callback=fetched)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores an artifact; S3 shows it when it is whole.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        with self._explained(f"written ({artifact_id})"):
            self._store.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Deletes an artifact, if it is there.

        Raises:
            StorageError: If the bucket cannot be written.
        """
        with self._explained(f"written ({artifact_id})"):
            self._store.remove(artifact_id)

    def stored(self, prefix: str = "") -> Iterator[Stored]:
        """Lists the artifacts whose names begin so.

        Raises:
            StorageError: If the bucket cannot be listed.
        """
        with self._explained("listed"):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    yield Stored(found["Key"], int(found["Size"]), found["LastModified"])

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BotoCoreError, ClientError, Boto3Error) as error:
            text = " ".join(_USER.sub("://***@", str(error)).split())
            raise StorageError(
                f"the {self.title} cannot be {what}: {text}; check the bucket, and region, endpoint "
                "and credentials as boto3 finds them"
            ) from None


class _Body(io.RawIOBase):
    """What a bucket answers, read with our errors."""

    def __init__(self, store: S3Store, body: Any) -> None:
        self._store, self._body = store, body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with self._store._explained("read"):
            data = self._body.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._body.close()
        super().close()


def _client(attempts: int) -> Any:
    retries = {"mode": "standard", "total_max_attempts": attempts}
    return boto3.client("s3", config=Config(connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries=retries))
