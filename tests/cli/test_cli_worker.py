"""Workers of a search that was created without being run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

Run = Callable[..., Ended]


@pytest.fixture
def created(folder: Path, aes: Run) -> str:
    """Output of the creation."""
    ended = aes("search", "clicks.csv", *SMALL, "--no-run")
    assert (ended.code, ended.err) == (0, "")
    return ended.out


def stages(aes: Run) -> dict[str, tuple[int, int]]:
    found = json.loads(aes("status", "--json").out)["stages"]
    return {stage: (c["finished"], c["requested"]) for stage, c in found.items()}


def test_no_run_trains_nothing_and_says_how_to_work(created: str, aes: Run) -> None:
    assert "optuna-aes worker --name clicks" in created
    assert stages(aes) == {"fit": (0, 1), "search": (0, 24), "retrain": (0, 1)}


def test_a_worker_does_it_all_from_what_the_study_says(created: str, aes: Run) -> None:
    ended = aes("worker", "--name", "clicks", "--device", "cpu", "--threads", "1")
    assert (ended.code, ended.err) == (0, "")
    assert "fit: epoch 2/2" in ended.out
    assert stages(aes) == {"fit": (1, 1), "search": (24, 24), "retrain": (1, 1)}
    again = aes("worker", "--device", "cpu", "--threads", "1")
    assert again.code == 0
    assert "fit done: 2 epochs · done before" in again.out


def test_a_program_is_told_as_json(folder: Path, aes: Run) -> None:
    found = json.loads(aes("search", "clicks.csv", *SMALL, "--no-run", "--json").out)
    assert found["study"] == "clicks"
    assert Path(found["data"]).is_dir()


def test_a_worker_finds_its_data_elsewhere_and_knows_it(created: str, folder: Path, aes: Run) -> None:
    (data,) = (folder / ".optuna_aes/datasets").iterdir()
    shutil.move(data, folder / "copy")
    gone = aes("worker", "--device", "cpu")
    assert gone.code == 2
    assert "--data FOLDER" in gone.err
    (folder / "other.csv").write_text("user,label\n" + "\n".join(f"u{i % 7},{i % 2}" for i in range(100)))
    assert aes("search", "other.csv", *SMALL, "--no-run", "--name", "other").code == 0
    (other,) = (folder / ".optuna_aes/datasets").iterdir()
    wrong = aes("worker", "--name", "clicks", "--data", str(other), "--device", "cpu")
    assert wrong.code == 2
    assert "fingerprint" in wrong.err
    assert aes("worker", "--name", "clicks", "--data", "copy", "--device", "cpu", "--threads", "1").code == 0
    assert json.loads(aes("status", "--name", "clicks", "--json").out)["stages"]["fit"]["finished"] == 1


def test_how_a_gpu_is_to_compute_is_the_search_s_to_say(folder: Path, aes: Run) -> None:
    options = ["search", "clicks.csv", *SMALL, "--amp", "--deterministic"]
    assert aes(*options, "--no-run").code == 0
    assert aes("worker", "--device", "cpu", "--threads", "1", "--quiet").code == 0
    assert stages(aes) == {"fit": (1, 1), "search": (24, 24), "retrain": (1, 1)}
    assert aes(*options, "--quiet").code == 0
    other = aes(*options, "--no-amp", "--no-run")
    assert other.code == 2
    assert "train.amp was True and is False" in other.err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--poll", "0", "--poll 0.0"), ("--device", "tpu", "'tpu'"), ("--name", "nope", "'nope'")],
)
def test_what_a_worker_refuses(created: str, aes: Run, option: str, value: str, said: str) -> None:
    ended = aes("worker", option, value)
    assert ended.code == 2
    assert said in ended.err
    assert ended.err.count("\n") == 1
