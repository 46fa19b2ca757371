"""A search that is stopped or killed goes on where it was, and loses nothing that was finished."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from command_line import SMALL, Ended
from optuna.trial import TrialState

from optuna_aes.cli.stopping import stoppable
from optuna_aes.search.work import waiting
from optuna_aes.storage import queue

Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]

STORAGE = "sqlite:///aes.db"
TRIALS = 48
REFERENCES = 3  # the uniform sizes 1, 2 and 4
COMMAND = ["search", "clicks.csv", *SMALL, "--epochs", "4", "--trials", str(TRIALS), "--reference"]

# What the run prints once a stage is under way.
UNDER_WAY = {"fit": "fit: epoch 1/4", "search": "search: 12/48", "retrain": "retrain: 1/"}


def run_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended before {text!r}: {process.communicate()[1]}")


def trials() -> dict[str, list[optuna.trial.FrozenTrial]]:
    return {
        suffix: optuna.load_study(study_name=f"clicks{suffix}", storage=STORAGE).get_trials()
        for suffix in ("/fit", "", "/retrain")
    }


def finished() -> dict[tuple[str, int], tuple[Any, ...]]:
    return {
        (suffix, t.number): (t.values, t.params, t.constraints, t.datetime_complete, t.intermediate_values)
        for suffix, found in trials().items()
        for t in found
        if t.state == TrialState.COMPLETE
    }


def stages(aes: Run) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(aes("status", "--json").out)["stages"]
    return found


def assert_whole(aes: Run, before: dict[tuple[str, int], tuple[Any, ...]]) -> None:
    after = finished()
    assert {key: after.get(key) for key in before} == before
    number = {suffix: sum(key[0] == suffix for key in after) for suffix in ("/fit", "", "/retrain")}
    assert (number["/fit"], number[""]) == (1, TRIALS)
    assert number["/retrain"] == stages(aes)["retrain"]["requested"] >= REFERENCES
    undone = [t.state for found in trials().values() for t in found if not t.state.is_finished()]
    assert undone == []
    for counts in stages(aes).values():
        assert counts["finished"] == counts["requested"]
        assert counts["running"] == counts["failed"] == 0


@pytest.mark.parametrize("stage", UNDER_WAY)
def test_kill_9_loses_nothing_that_was_finished(stage: str, folder: Path, aes: Run, start: Start) -> None:
    process = start(*COMMAND)
    run_until(process, UNDER_WAY[stage])
    process.kill()
    assert process.wait() == -signal.SIGKILL
    counts = stages(aes)[stage]
    assert counts["finished"] < counts["requested"], "the kill came too late to test anything"
    before = finished()
    epochs = stages(aes)["fit"]["epochs"]

    ended = aes(*COMMAND)

    assert ended.code == 0, ended.err
    assert_whole(aes, before)
    assert "fit: epoch 1/4" not in ended.out, "the fit began anew"
    if stage == "fit":
        assert f"fit goes on after {epochs} of 4 epochs" in ended.out
    (fit,) = (t for t in trials()["/fit"] if t.state == TrialState.COMPLETE)
    assert sorted(fit.intermediate_values) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("stage", "number"), [("fit", signal.SIGINT), ("search", signal.SIGINT), ("retrain", signal.SIGTERM)]
)
def test_a_stop_is_one_line_and_the_same_command_goes_on(
    stage: str, number: signal.Signals, folder: Path, aes: Run, start: Start
) -> None:
    process = start(*COMMAND)
    run_until(process, UNDER_WAY[stage])
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped: run the same command again to go on\n")
    assert all(counts["running"] == 0 for counts in stages(aes).values())
    before = finished()

    assert aes(*COMMAND).code == 0

    assert_whole(aes, before)


def test_a_stopped_search_finds_what_an_unbroken_one_finds(folder: Path, aes: Run, start: Start) -> None:
    process = start(*COMMAND)
    run_until(process, UNDER_WAY["fit"])
    process.kill()
    process.wait()
    assert aes(*COMMAND).code == 0
    assert aes(*COMMAND, "--name", "unbroken", "--storage", "sqlite:///unbroken.db").code == 0

    broken = json.loads(aes("pareto", "--json").out)["points"]
    unbroken = json.loads(aes("pareto", "--json", "--storage", "sqlite:///unbroken.db").out)["points"]
    assert [(p["sizes"], p["auc_test"]) for p in broken] == [(p["sizes"], p["auc_test"]) for p in unbroken]


def test_a_claim_without_a_name_is_given_up(folder: Path, aes: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kill -9 of a worker leaves it, when it comes between Optuna's own claim of a trial and its first sign of life."""
    assert aes(*COMMAND, "--no-run").code == 0
    fit = optuna.load_study(study_name="clicks/fit", storage=STORAGE)
    fit.add_trial(waiting())
    fit._pop_waiting_trial_id()
    assert stages(aes)["fit"]["running"] == 1

    monkeypatch.setattr(queue, "NAMELESS", 0.5)
    ended = aes(*COMMAND)

    assert ended.code == 0
    assert "waiting for another worker at clicks/fit, trial 0" in ended.out
    assert_whole(aes, {})


def test_a_stop_that_hits_a_finaliser_is_not_lost() -> None:
    class Unlucky:
        def __del__(self) -> None:
            raise KeyboardInterrupt

    def work() -> None:
        Unlucky()
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), stoppable():
        work()
