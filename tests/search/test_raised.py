"""More is asked for while workers run: they do it, whatever they are at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_search import Heard, tiny_data, tiny_search

from optuna_aes import Dataset, Search
from optuna_aes.search.records import CHOSEN
from optuna_aes.search.watch import Watch
from optuna_aes.search.work import WAITING
from optuna_aes.storage import WorkQueue
from optuna_aes.storage.queue import Hold
from optuna_aes.strategies.registry import strategy_class


class Does(Heard):
    """Does something, once, when it hears a call."""

    def __init__(self, call: str, action: Callable[[], Any], *, says: str = "") -> None:
        super().__init__()
        self.call, self.action, self.says, self.done = call, action, says, False

    def _hear(self, call: str, *values: Any) -> None:
        super()._hear(call, *values)
        if call == self.call and not self.done and self.says in str(values):
            self.done = True
            self.action()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_data().save(tmp_path_factory.mktemp("data") / "tiny")


def worker(search: Search, data: Dataset, listener: Heard) -> Search:
    url = search.record.storage.url
    return Search.load("tiny", url, dataset=data, device="cpu", poll=0.05, listener=listener)


def counts(search: Search) -> dict[str, tuple[int, int]]:
    return {stage: (c["finished"], c["requested"]) for stage, c in search.status()["stages"].items()}


def test_while_it_scores(storage_url: str, data: Dataset) -> None:
    search = tiny_search(storage_url, data, trials=10)
    watch = Watch(search.record)
    assert watch.look().status["stages"]["search"]["requested"] == 10
    heard = Does("scored", lambda: tiny_search(storage_url, data, trials=18))
    worker(search, data, heard).run()
    assert heard.last("scored")[:2] == (18, 18)
    begun = [values[0] for call, values in heard.calls if call == "stage"]
    assert (begun.count("search"), begun.count("retrain")) == (1, 1)
    assert counts(search)["search"] == (18, 18)
    assert search.record.studies.retrain.user_attrs[CHOSEN]["basis"]["scored"] == 18
    assert watch.look().status["stages"]["search"]["requested"] == 18  # who looks on sees it too


def test_while_it_trains_from_scratch(tmp_path: Path, data: Dataset) -> None:
    url = f"sqlite:///{tmp_path}/aes.db"
    search = tiny_search(url, data, trials=10, retrain=1, reference=False)
    heard = Does("retrained", lambda: tiny_search(url, data, trials=14, retrain=3, reference=False))
    worker(search, data, heard).run()
    found = counts(search)
    assert found["search"] == (14, 14)
    assert found["retrain"][0] == found["retrain"][1] >= 3
    basis = search.record.studies.retrain.user_attrs[CHOSEN]["basis"]
    assert (basis["scored"], basis["retrain"]) == (14, 3)


def test_while_it_waits_for_another_worker(storage_url: str, data: Dataset) -> None:
    search = tiny_search(storage_url, data, trials=10, retrain=1, reference=False)
    held: list[Hold] = []

    def take() -> None:  # another worker takes the only training, before this one does
        hold = WorkQueue(search.record.studies.retrain).claim()
        assert hold is not None
        held.append(hold)

    waiting, scored = threading.Event(), threading.Event()
    heard = Does("note", waiting.set, says=f"{WAITING} at tiny/retrain")
    heard.scored = lambda finished, *_: scored.set() if finished == 18 else None  # type: ignore[method-assign]
    heard.stage = lambda stage, *_: take() if stage == "retrain" and not held else None  # type: ignore[method-assign]
    thread = threading.Thread(target=worker(search, data, heard).run)
    thread.start()
    assert waiting.wait(60)
    tiny_search(storage_url, data, trials=18, retrain=1, reference=False)
    assert scored.wait(60), "the waiting worker has not seen what was asked for"
    assert thread.is_alive()
    held[0].release()
    thread.join(60)
    assert not thread.is_alive()
    found = counts(search)
    assert found["search"] == (18, 18)
    assert found["retrain"][0] == found["retrain"][1]


def test_where_every_trial_is_trained(tmp_path: Path, data: Dataset) -> None:
    url, strategy = f"sqlite:///{tmp_path}/aes.db", strategy_class("retrain-tpe")()
    search = tiny_search(url, data, trials=2, retrain=0, reference=False, strategy=strategy)
    more = {"trials": 4, "retrain": 0, "reference": False, "strategy": strategy}
    heard = Does("scored", lambda: tiny_search(url, data, **more))
    worker(search, data, heard).run()
    assert sum("aes:curve" in t.user_attrs for t in search.record.studies.search.get_trials()) == 4
    assert heard.last("scored")[1] == 4
