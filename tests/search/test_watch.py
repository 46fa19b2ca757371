"""What is seen of a search while workers are at it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from tiny_search import tiny_data, tiny_search

from optuna_aes.cli.watch import drawn, one_line
from optuna_aes.search import watch as watch_module
from optuna_aes.search.watch import Watch
from optuna_aes.search.work import waiting
from optuna_aes.storage import WorkQueue, worker_identity
from optuna_aes.storage.presence import present, workers_of
from optuna_aes.storage.queue import WORKER


def shown(view: Any) -> str:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(drawn(view, 2))
    return capture.get()


def test_workers_what_they_hold_and_who_is_gone(storage_url: str) -> None:
    record = tiny_search(storage_url, tiny_data()).record
    watch = Watch(record)
    assert watch.look().workers == ()
    assert watch.look().stage == "fit"
    WorkQueue(record.studies.fit).add([waiting()])
    hold = WorkQueue(record.studies.fit).claim()
    assert hold is not None
    me = worker_identity()
    unlisted = watch.look()
    assert [(w.pid, w.doing) for w in unlisted.workers] == [(me["pid"], "fit, trial 0")]
    with present(record.storage, "tiny", "cpu"):
        while not workers_of(record.storage, "tiny"):
            pass
        (worker,) = watch.look().workers
        assert (worker.host, worker.pid, worker.device) == (me["host"], me["pid"], "cpu")
        assert (worker.doing, worker.alive) == ("fit, trial 0", True)
        hold.release()
        assert watch.look().workers[0].doing == "waiting"
    assert workers_of(record.storage, "tiny") == []

    hold = WorkQueue(record.studies.fit).claim()
    assert hold is not None
    assert watch.look().stale == 0
    dead = {**json.loads(hold.mark), "started": "1"}
    record.storage.set_trial_user_attr(next(iter(hold.trials)), WORKER, dead)
    view = watch.look()
    assert view.stale == 1
    assert "1 stale" in one_line(view)
    assert f"{me['host']} {me['pid']}" in shown(view)


def test_speed_and_time_left_are_of_the_stage_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", tiny_data(), trials=10)
    search.run(["fit"])
    clock = [100.0]
    monkeypatch.setattr(watch_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    watch = Watch(search.record)
    first = watch.look()
    assert (first.stage, first.per_minute, first.eta) == ("search", None, None)
    four = tiny_search(search.record.storage, tiny_data(), trials=4)
    four.run(["search"])
    again = tiny_search(search.record.storage, tiny_data(), trials=10)
    watch.record = again.record
    clock[0] += 30
    view = watch.look()
    assert view.per_minute == pytest.approx(8.0)
    assert view.eta == pytest.approx(6 * 60 / 8)
    assert "8 trials/min · 45 s left" in one_line(view)
    again.run()
    done = watch.look()
    assert (done.stage, done.eta) == (None, None)
    assert one_line(done).endswith("done")
    assert "10/10" in shown(done)
