"""Workers whose data lies in an object store."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

Run = Callable[..., Ended]
HERE = ("--device", "cpu", "--threads", "1")


@pytest.fixture
def url(folder: Path, bucket: str, aes: Run) -> str:
    """The encoded table in a bucket, and nowhere else."""
    import boto3

    assert aes("search", "clicks.csv", *SMALL, "--no-run", "--name", "local").code == 0
    (data,) = (folder / ".optuna_aes/datasets").iterdir()
    for path in data.iterdir():
        boto3.client("s3").upload_file(str(path), bucket, f"data/{path.name}")
    shutil.rmtree(folder / ".optuna_aes")
    return f"s3://{bucket}/data"


def finished(aes: Run, name: str) -> dict[str, int]:
    found = json.loads(aes("status", "--name", name, "--json").out)["stages"]
    return {stage: counts["finished"] for stage, counts in found.items()}


def test_a_worker_is_told_where_its_data_lies(url: str, folder: Path, aes: Run) -> None:
    gone = aes("worker", "--name", "local", *HERE)
    assert gone.code == 2
    assert "s3://BUCKET/FOLDER" in gone.err
    ended = aes("worker", "--name", "local", "--data", url, "--cache", "mine", *HERE)
    assert (ended.code, ended.err) == (0, "")
    assert "fetch done: 2,000 rows" in ended.out
    assert f"data    {url} · " in ended.out
    assert finished(aes, "local") == {"fit": 1, "search": 24, "retrain": 1}
    assert aes("export", "--name", "local", "--out", "model", "--data", url, "--cache", "mine").code == 0
    assert (folder / "model/encoder.json").exists()
    assert not (folder / ".optuna_aes").exists()


def test_a_search_of_such_data_tells_its_workers(url: str, folder: Path, aes: Run) -> None:
    ended = aes("search", url, *SMALL, "--no-run", "--name", "remote")
    assert (ended.code, ended.err) == (0, "")
    assert f"{url}, fetched" in ended.out
    shutil.rmtree(folder / ".optuna_aes")  # as on another machine
    assert aes("worker", "--name", "remote", *HERE, "--quiet").code == 0
    assert finished(aes, "remote") == {"fit": 1, "search": 24, "retrain": 1}
    # The same rows given as a table are the same search, which still knows where they come from.
    assert aes("search", "clicks.csv", *SMALL, "--name", "remote", "--quiet").code == 0
    shutil.rmtree(folder / ".optuna_aes")
    assert aes("search", url, *SMALL, "--name", "remote", "--quiet").code == 0


def test_what_is_refused(url: str, aes: Run) -> None:
    for place, said in ((url + "x", "no schema.json"), ("s3://nowhere/x", "does not exist"), ("ftp://a/b", "unknown")):
        ended = aes("worker", "--name", "local", "--data", place, *HERE)
        assert ended.code == 2
        assert said in ended.err
        assert ended.err.count("\n") == 1
