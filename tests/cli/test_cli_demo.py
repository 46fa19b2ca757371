"""The demo, on less data than a user gets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Ended

from optuna_aes.cli import demo
from optuna_aes.data.dataset import Dataset
from optuna_aes.data.synthetic import planted

Run = Callable[..., Ended]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def few(*, seed: int) -> Dataset:
        return planted(rows=(8000, 2000, 2000), seed=seed)

    monkeypatch.setattr(demo, "planted", few)
    monkeypatch.setattr(demo, "TRIALS", 24)
    monkeypatch.setattr(demo, "RETRAIN", 1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_explains_what_it_found_and_is_not_done_twice(short: Path, aes: Run) -> None:
    first = aes("demo", "--out", "here/there")

    assert (first.code, first.err) == (0, "")
    for text in (
        "of best",
        "The best point, trial",
        "of what is possible above chance",
        "fewer than at full size, whose test AUC is",
        "The fields that are pure noise got these sizes: session",
        "here/there/report.html",
        "optuna-aes search clicks.csv --label click",
    ):
        assert text in " ".join(first.out.split()), text
    page = (short / "here/there/report.html").read_text(encoding="utf-8")
    assert "demo" in page

    status = json.loads(aes("status", "--storage", "sqlite:///here/there/aes.db", "--json").out)
    assert status["study"] == "demo"
    assert all(c["finished"] == c["requested"] for c in status["stages"].values())

    again = aes("demo", "--out", "here/there")
    assert again.code == 0
    assert again.out.count("done before") == 3
    assert again.out[again.out.index("★") :] == first.out[first.out.index("★") :]

    other = aes("demo", "--out", "here/there", "--seed", "1")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "here/there holds a demo of another seed" in other.err
    assert aes("demo", "--out", "here/there", "--quiet") == Ended(0, "", "")


def test_a_demo_of_no_seed_leaves_nothing(short: Path, aes: Run) -> None:
    ended = aes("demo", "--seed=-1")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "seed=-1 is out of range" in ended.err
    assert not list(short.iterdir())
