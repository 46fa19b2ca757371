"""A whole search through Optuna's gRPC proxy, and what it lacks, told in a line."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import get_storage
from optuna.trial import create_trial

from optuna_aes.cli import main
from optuna_aes.errors import StorageError
from optuna_aes.storage import add_trials, open_artifact_store, open_storage

grpc = pytest.importorskip("grpc", reason="pip install grpcio protobuf")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serve(path: Path, port: int) -> Any:
    from optuna.storages._grpc.server import make_server

    server = make_server(get_storage(open_storage(f"sqlite:///{path}/aes.db")), "127.0.0.1", port)
    server.start()
    return server


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    server = serve(tmp_path, port)
    yield f"grpc://127.0.0.1:{port}"
    server.stop(None)


@pytest.mark.slow
def test_a_whole_search(proxy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"u{i * 7 % 40},i{i % 31},{int(i * 7 % 40 < 15)}" for i in range(1500)]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,label", *rows]))
    small = ["--epochs", "1", "--batch-size", "256", "--hidden", "8", "--dim", "4", "--device", "cpu", "--threads", "1"]
    small += ["--trials", "12", "--group", "6", "--retrain", "1", "--no-reference", "--quiet"]
    command = ["search", f"{tmp_path}/clicks.csv", *small, "--name", "ads", "--storage", proxy]
    assert main(command) == 2  # nothing is there yet: told before anything is made
    assert "--artifacts FOLDER or s3://BUCKET" in capsys.readouterr().err
    command += ["--artifacts", f"{tmp_path}/weights"]
    assert main(command) == 0
    assert main(["status", "--storage", proxy, "--json"]) == 0
    assert main(["export", "--storage", proxy, "--out", f"{tmp_path}/model"]) == 0
    assert (tmp_path / "model/sizes.json").exists()
    assert main(["storage", "check", "--storage", f"sqlite:///{tmp_path}/aes.db"]) == 0
    capsys.readouterr()
    for verb in ("check", "gc", "upgrade", "serve"):
        assert main(["storage", verb, "--storage", proxy]) == 2
        assert "is a proxy: give the database that it serves" in capsys.readouterr().err


def test_a_proxy_that_is_restarted(tmp_path: Path) -> None:
    port = free_port()
    server = serve(tmp_path, port)
    study = optuna.create_study(storage=open_storage(f"grpc://127.0.0.1:{port}"), study_name="s")
    server.stop(None).wait()
    servers = []
    timer = threading.Timer(2.0, lambda: servers.append(serve(tmp_path, port)))
    timer.start()
    started = time.monotonic()
    assert add_trials(study, [create_trial(value=1.0) for _ in range(3)]) == [0, 1, 2]
    assert time.monotonic() - started > 1
    timer.join()
    servers[0].stop(None)


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url, why in (
        (f"grpc://127.0.0.1:{free_port()}", "cannot be reached: start it with `optuna-aes storage serve"),
        ("grpc://u:hunter2@h:1", "must be grpc://HOST:PORT and no more"),
        ("grpc://h:1/d", "must be grpc://HOST:PORT and no more"),
    ):
        with pytest.raises(StorageError, match=why) as caught:
            open_storage(url)
        assert "hunter2" not in str(caught.value)
    monkeypatch.delitem(sys.modules, "optuna_aes.storage._proxy", raising=False)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(StorageError, match=r"optuna-aes\[grpc\]"):
        open_storage("grpc://h:1")
    with pytest.raises(StorageError, match="--artifacts FOLDER"):
        open_artifact_store(None, optuna.storages.InMemoryStorage())  # type: ignore[arg-type]
