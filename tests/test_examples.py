"""The examples run as a user runs them, in an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(example: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_says_what_it_shows() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert path.read_text(encoding="utf-8").startswith('"""'), path.name


def test_own_model(tmp_path: Path) -> None:
    text = run("own_model.py", cwd=tmp_path)
    full, _, *front = text.splitlines()
    assert "full size everywhere" in full
    assert float(front[-1].split()[1]) > float(full.split()[1])
    # The session means nothing and holds most of the parameters: what is best leaves it out.
    assert "'session': 0" in front[-1]


@pytest.mark.slow
def test_own_data(tmp_path: Path) -> None:
    text = run("own_data.py", cwd=tmp_path)
    _, *front, full, predictions = text.splitlines()
    assert all("'session': 0" in line for line in front)
    assert float(front[-1].split()[2]) > float(full.split()[2])
    assert "predictions for two raw rows: 0." in predictions
    assert {"sizes.json", "model.safetensors", "schema.json"} <= {
        p.name for p in (tmp_path / "own_data/model").iterdir()
    }
    # Again: everything is done, and says the same.
    assert run("own_data.py", cwd=tmp_path) == text


@pytest.mark.slow
def test_own_data_with_a_table(tmp_path: Path) -> None:
    ids = [(a * b) % 40 for a in range(40) for b in range(40)]
    table = {"word": [f"w{i % 30}" for i in range(1600)], "id": ids, "weight": [i / 7 for i in ids]}
    pl.DataFrame({**table, "bought": [int((i * 7) % 40 < 12) for i in ids]}).write_csv(tmp_path / "t.csv")
    text = run("own_data.py", "t.csv", "--label", "bought", "--out", "made", cwd=tmp_path)
    assert "'word'" in text
    assert (tmp_path / "made/model/model.safetensors").exists()


@pytest.mark.slow
def test_own_strategy(tmp_path: Path) -> None:
    table = {"user": [f"u{i % 50}" for i in range(2000)], "item": [f"i{i % 31}" for i in range(2000)]}
    clicks = [int((i % 50) * 7 % 10 < 4) for i in range(2000)]
    pl.DataFrame({**table, "click": clicks}).write_csv(tmp_path / "clicks.csv")
    options = ["clicks.csv", "--label", "click", "--epochs", "1", "--dim", "4", "--retrain", "1", "--no-reference"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)}
    strategy = ["--strategy", "own_strategy:Frequent", "--set", "keep=0.25", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "optuna_aes", "search", *options, *strategy]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["strategy"] == "own_strategy:Frequent"
    assert len(found["points"]) == 1
