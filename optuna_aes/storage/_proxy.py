"""``grpc://HOST:PORT``: studies behind Optuna's gRPC proxy, so that workers need no way to the database itself."""

from __future__ import annotations

import json
import logging
import warnings

import grpc
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy
from optuna.storages._grpc.auto_generated import api_pb2_grpc
from optuna.storages._grpc.client import GrpcClientCache

from optuna_aes.errors import StorageError

DEFAULT_PORT = 13000  # Optuna's

_logger = logging.getLogger(__name__)


class ProxyStorage(GrpcStorageProxy):
    """Optuna's client, whose calls wait for a proxy that is away.

    A call that was on its way when the proxy went is not repeated: nobody knows whether it was done.

    Args:
        host: The proxy's host.
        port: Its port.
        patience: Seconds that a call waits.
    """

    def __init__(self, *, host: str, port: int, patience: float) -> None:
        self._patience = patience
        self.url = f"grpc://{host}:{port}"
        super().__init__(host=host, port=port)

    def _setup(self) -> None:
        waits = {"name": [{}], "waitForReady": True, "timeout": f"{self._patience:.0f}s"}
        options = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.service_config", json.dumps({"methodConfig": [waits]})),
        ]
        self._channel = grpc.insecure_channel(f"{self._host}:{self._port}", options=options)
        self._stub = api_pb2_grpc.StorageServiceStub(self._channel)
        self._cache = GrpcClientCache(self._stub)


def open_proxy(host: str, port: int | None, *, patience: float, wait: float) -> ProxyStorage:
    """Connects to a proxy.

    Raises:
        StorageError: If it cannot be reached.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        storage = ProxyStorage(host=host, port=port or DEFAULT_PORT, patience=patience)
    try:
        storage.wait_server_ready(timeout=max(wait, 5.0))
    except ConnectionError:
        storage.close()
        raise StorageError(
            f"the storage grpc://{host}:{port or DEFAULT_PORT} cannot be reached: start it with "
            "`optuna-aes storage serve --storage URL`, and check host and port"
        ) from None
    _logger.info("no heartbeats over grpc://: trials of a worker that dies are taken over on its own machine only")
    return storage
