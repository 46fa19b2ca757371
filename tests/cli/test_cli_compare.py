from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import SMALL, Ended

from optuna_aes.cli.fleet import Fleet
from optuna_aes.cli.options import SearchOptions
from optuna_aes.errors import InputError
from optuna_aes.search.read import open_record

Run = Callable[..., Ended]
THESE = [a for a in SMALL if a not in ("--no-reference", "--retrain", "--threads", "1")]
THESE += ["--threads", "1", "--trials", "8", "--strategies", "adass,random,magnitude"]


@pytest.mark.slow
def test_strategies_are_compared_and_a_second_run_redoes_nothing(folder: Path, aes: Run) -> None:
    asked = ("compare", "clicks.csv", *THESE, "--seeds", "2", "--shares", "0.25,1")
    first = aes(*asked, "--json", "--html", "c.html", "--markdown", "c.md")
    assert first.code == 0, first
    found = json.loads(first.out)
    assert [row["strategy"] for row in found["rows"]] == ["adass", "random", "magnitude"]
    assert all(row["auc"]["1.0"]["count"] == 2 for row in found["rows"])
    assert found["uniform"]["0.25"]["count"] == 2
    assert (folder / "c.md").read_text().count("\n") == 2 + 3 + 1
    assert "adass" in (folder / "c.html").read_text()

    # The baselines took AdaS&S's supernet, and are charged for it; magnitude's is another one.
    shared, lender = (open_record(f"clicks.{s}.0", "sqlite:///aes.db").studies.fit.trials for s in ("random", "adass"))
    assert shared[0].user_attrs["aes:supernet_of"] == "clicks.adass.0"
    assert shared[0].user_attrs["aes:seconds"] == lender[0].user_attrs["aes:seconds"]
    own = open_record("clicks.magnitude.0", "sqlite:///aes.db").studies.fit.trials
    assert "aes:supernet_of" not in own[0].user_attrs

    again = aes(*asked, "--json")
    assert json.loads(again.out) == found
    shown = aes(*asked, "--quiet")
    assert (shown.code, shown.out) == (0, "")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["--seeds", "0"], "--seeds 0 is out of range"),
        (["--shares", "0.5,2"], "shares in (0, 1]"),
        (["--strategies", "adass,nope"], "strategy='nope' is not known"),
        (["--strategies", ","], "give one strategy or more"),
        (["--shares", "0.025", "--sizes", "2,4"], "below the smallest"),
        (["--budget", "0.5"], "--budget is not for several searches"),
        (["--levels", "1,0.5"], "--levels is not for several searches"),
    ],
)
def test_what_cannot_be_compared(folder: Path, aes: Run, given: list[str], text: str) -> None:
    ended = aes("compare", "clicks.csv", *THESE, *given)
    assert ended.code == 2
    assert ended.out == ""
    assert text in ended.err
    assert ended.err.count("\n") == 1


def test_a_strategy_of_whole_fields_keeps_to_them_beside_one_of_blocks() -> None:
    options = replace(SearchOptions(), name="s", blocks="frequency")
    fleet = Fleet(options, ["adass", "magnitude", "mde"], seeds=1, shares=(0.5,))
    assert [search.blocks for search in fleet.searches()] == ["frequency", "field", "frequency"]
    with pytest.raises(InputError, match="--blocks frequency: the strategy 'magnitude' has one size per field"):
        Fleet(options, ["magnitude"], seeds=1, shares=(0.5,)).searches()
