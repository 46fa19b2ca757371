from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

from optuna_aes.search.read import open_record
from optuna_aes.search.studies import complete

Run = Callable[..., Ended]
THESE = [a for a in SMALL if a not in ("--no-reference", "--retrain", "--threads", "1")]
THESE += ["--threads", "1", "--strategies", "adass,magnitude"]


@pytest.mark.slow
def test_seeds_are_compared_on_one_supernet_and_on_several(folder: Path, aes: Run) -> None:
    asked = ("stability", "clicks.csv", *THESE, "--seeds", "2", "--shares", "0.25,1")
    first = aes(*asked, "--json", "--html", "s.html", "--markdown", "s.md")
    assert first.code == 0, first
    found = json.loads(first.out)
    assert [row["strategy"] for row in found["rows"]] == ["adass", "magnitude"]
    for row in found["rows"]:
        for share in ("0.25", "1.0"):
            assert 0 <= row["whole"][share]["same"] <= 1
            assert len(row["sizes"][share]) == 2
    # What pruning finds is a function of its supernet.
    assert found["rows"][1]["search"]["0.25"] == {"same": 1.0, "log2_std": 0.0}
    assert (folder / "s.md").read_text().count("\n") == 2 + 2
    assert "magnitude" in (folder / "s.html").read_text()

    record = open_record("clicks.adass.0.shared.1", "sqlite:///aes.db")
    assert record.studies.fit.trials[0].user_attrs["aes:supernet_of"] == "clicks.adass.0"
    assert record.settings["seed"] == 1
    assert "aes:supernet_of" not in open_record("clicks.adass.1", "sqlite:///aes.db").studies.fit.trials[0].user_attrs
    assert not complete(record.studies.retrain)

    assert json.loads(aes(*asked, "--json").out) == found
    # A comparison finds these searches done, and has only to train what they picked.
    compared = aes("compare", "clicks.csv", *THESE, "--seeds", "2", "--shares", "0.25,1")
    assert compared.code == 0, compared
    assert "fit: epoch" not in compared.out


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--seeds", "1"], "--seeds 1 leaves nothing to compare"),
        (["--strategies", "adass,retrain-tpe"], "strategy='retrain-tpe' has no supernet"),
        (["--budget", "0.5"], "--budget is not for several searches"),
    ],
)
def test_what_cannot_be_told(folder: Path, aes: Run, given: list[str], text: str) -> None:
    ended = aes("stability", "clicks.csv", *THESE, *given)
    assert ended.code == 2
    assert ended.out == ""
    assert text in ended.err
    assert ended.err.count("\n") == 1
