"""Several workers at one search: races, workers that died or only seemed to, and work that goes wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from tiny_search import STRATEGY, Heard, tiny_data, tiny_search

from optuna_aes import Dataset, Search
from optuna_aes.errors import InputError
from optuna_aes.search import fit as fit_module
from optuna_aes.search import retrain as retrain_module
from optuna_aes.search import work
from optuna_aes.search.context import Context
from optuna_aes.search.records import CHOSEN, key_of
from optuna_aes.search.work import FAILURES, SHRINK, Held, StageError, work_through
from optuna_aes.storage import WorkQueue, open_storage
from optuna_aes.storage.queue import REASON
from optuna_aes.strategies.registry import strategy_class

ROUNDS, WORKERS = int(os.environ.get("OPTUNA_AES_ROUNDS", "8")), 3


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PAUSE", 0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_data().save(tmp_path_factory.mktemp("data") / "tiny")


def race(action: Callable[[int], Any]) -> list[Any]:
    """Does something in as many threads as there are workers, all at once."""
    barrier, results, errors = threading.Barrier(WORKERS), [None] * WORKERS, list[BaseException]()

    def run(number: int) -> None:
        try:
            barrier.wait()
            results[number] = action(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return results


def workers(search: Search, data: Dataset) -> list[Context]:
    """Contexts that share nothing but the database, as processes have them."""
    url = search.record.storage.url
    loaded = [Search.load("tiny", open_storage(url), dataset=data, device="cpu", poll=0.05) for _ in range(WORKERS)]
    return [one.context for one in loaded]


def with_study(context: Context, stage: str, name: str) -> Context:
    """The same search with another, empty, study of one stage."""
    study = optuna.load_study(storage=context.storage, study_name=name)
    studies = dict.fromkeys({"fit": ["fit"], "retrain": ["retrain", "picks"]}[stage], study)
    return replace(context, studies=replace(context.studies, **studies))


def test_one_worker_fits_however_many_try(storage_url: str, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def objective(context: Context, held: Held) -> float:
        trained.append(held.trial.study.study_name)
        return 0.5

    monkeypatch.setattr(fit_module, "_objective", objective)
    contexts = workers(tiny_search(storage_url, data), data)
    for number in range(ROUNDS):
        study = optuna.create_study(storage=contexts[0].storage, study_name=f"round{number}", direction="maximize")
        race(lambda at, name=study.study_name: fit_module.fit(with_study(contexts[at], "fit", name)))  # type: ignore[misc]
    assert sorted(trained) == sorted(f"round{number}" for number in range(ROUNDS))
    assert [t.state for t in study.trials] == [TrialState.COMPLETE]


def test_one_worker_lays_out_the_retraining(storage_url: str, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    search = tiny_search(storage_url, data)
    search.run(["fit", "search"])
    contexts, calls = workers(search, data), iter(range(10**6))
    # Workers whose machines do not compute the same would pick otherwise, each in its own way.
    rules = retrain_module.chosen.__globals__
    choose = rules["choose"]

    def own_choice(trials: Any, *args: Any, **kwargs: Any) -> Any:
        return choose(trials[next(calls) % 3 :], *args, **kwargs)

    monkeypatch.setitem(rules, "choose", own_choice)
    space = contexts[0].retrain_space
    for number in range(ROUNDS):
        directions = contexts[0].studies.retrain.directions
        study = optuna.create_study(storage=contexts[0].storage, study_name=f"round{number}", directions=directions)
        wanted = race(
            lambda at, name=study.study_name: retrain_module._lay_out(  # type: ignore[misc]
                with_study(contexts[at], "retrain", name), search.record.plan
            )
        )
        keys = [key_of(trial, space) for trial in study.get_trials(deepcopy=False)]
        assert len(keys) == len(set(keys))
        assert wanted == [set(keys)] * WORKERS
        assert len(keys) == 3 + len(study.user_attrs[CHOSEN]["picks"])


@pytest.mark.parametrize("name", ["adass", "retrain-tpe"])
def test_workers_share_a_search_and_none_overshoots(storage_url: str, data: Dataset, name: str) -> None:
    one_shot = name == "adass"
    strategy = STRATEGY if one_shot else strategy_class(name)()
    search = tiny_search(storage_url, data, strategy=strategy, trials=30 if one_shot else 5)
    contexts = workers(search, data)
    race(lambda at: Search(contexts[at], search.record).run())
    stages = search.status()["stages"]
    assert all(counts["finished"] == counts["requested"] for counts in stages.values())
    assert all(counts["failed"] == counts["running"] == 0 for counts in stages.values())
    found = search.context.studies.search.get_trials()
    assert all(t.state.is_finished() for t in found)
    finished = [t for t in found if t.state == TrialState.COMPLETE]
    if one_shot:
        assert len(finished) == 30
        assert len({tuple(t.params.values()) for t in finished}) >= 24, "workers propose the same"
    else:
        assert sum("aes:curve" in t.user_attrs for t in found) == 5


def test_what_fails_is_tried_again_and_then_recorded(storage_url: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url))
    WorkQueue(study).add([work.waiting() for _ in range(4)])
    tries: list[int] = []
    heard = Heard()

    def objective(held: Held) -> float:
        number = held.trial.number
        tries.append(number)
        if number == 0 and tries.count(0) < 3:
            raise RuntimeError("once in a while")
        if number == 1:
            raise RuntimeError("always\nthe same")
        if number == 2:
            raise InputError("lr=7 is out of range")
        return 1.0

    error = work_through(study, objective, crew=work.Crew(heard))
    assert isinstance(error, (RuntimeError, InputError))
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert [tries.count(n) for n in range(4)] == [3, 4, 1, 1]
    assert study.trials[0].user_attrs[FAILURES] == ["RuntimeError: once in a while"] * 2
    assert study.trials[1].user_attrs[REASON] == "RuntimeError: always the same"
    assert study.trials[2].user_attrs[REASON] == "InputError: lr=7 is out of range"
    assert sum("it is tried again" in text for _, (text,) in heard.calls) == 5
    assert sum("given up" in text for _, (text,) in heard.calls) == 2


def test_where_memory_does_not_suffice_batches_are_divided() -> None:
    study = optuna.create_study()
    WorkQueue(study).add([work.waiting()])
    parts: list[int] = []

    def objective(held: Held) -> float:
        parts.append(held.shrink)
        if held.shrink < 16:
            raise MemoryError("no room")
        return 1.0

    assert work_through(study, objective, crew=work.Crew(Heard())) is None
    assert parts == [1, 4, 16]
    assert study.trials[0].user_attrs[SHRINK] == 16


def test_a_slow_worker_that_lost_its_trial_drops_it_and_goes_on(storage_url: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url))
    other = optuna.load_study(study_name=study.study_name, storage=open_storage(storage_url))
    WorkQueue(study).add([work.waiting(), work.waiting()])
    heard, done = Heard(), list[int]()

    def fast(held: Held) -> float:
        done.append(held.trial.number)
        return 0.9

    def slow(held: Held) -> float:
        if not done:
            held.hold.release()  # as another worker does when the heartbeat has run out
            work_through(other, fast, crew=work.Crew(Heard()))
            held.trial.set_user_attr("mine", True)  # Optuna raises: it is finished
        return 0.1

    assert work_through(study, slow, crew=work.Crew(heard)) is None
    assert done == [0, 1]
    assert [t.values for t in study.trials] == [[0.9], [0.9]]
    assert ["taken over by another worker: dropped here" in text for _, (text,) in heard.calls] == [True]


def test_a_fit_that_fails_ends_every_worker_and_a_new_search_tries_again(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data)

    def fails(*_: Any) -> float:
        raise RuntimeError("no luck")

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "_objective", fails)
        with pytest.raises(RuntimeError, match="no luck"):
            search.run()
    late = Search.load("tiny", search.record.storage, dataset=data, device="cpu", tries_again=False)
    with pytest.raises(StageError, match=r"'tiny' failed for good \(RuntimeError: no luck\)"):
        late.run()
    assert search.status()["stages"]["fit"]["failed"] == 1
    search.run(["fit"])
    assert search.status()["stages"]["fit"]["finished"] == 1


def test_sizes_that_cannot_be_scored_leave_their_group_alone(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data)
    search.run(["fit"])
    scorer = type(search.context.one_shot.scorer(fit_module.load_supernet(search.context), data))
    score, bad = scorer.__call__, list[Any]()

    def sometimes(self: Any, paths: Any) -> Any:
        rows = [tuple(row) for row in paths]
        if not bad:
            bad.append(rows[1])
        if bad[0] in rows:
            raise RuntimeError("cannot be scored")
        return score(self, paths)

    monkeypatch.setattr(scorer, "__call__", sometimes)
    started = time.monotonic()
    search.run(["search"])
    assert time.monotonic() - started < 60, "given back by whoever held it, and not by its silence"
    trials = search.context.studies.search.trials
    assert [t.number for t in trials if t.state == TrialState.FAIL] == [1]
    assert trials[1].user_attrs[REASON] == "RuntimeError: cannot be scored"
    assert search.status()["stages"]["search"]["finished"] == 10
    assert sum(t.params == trials[1].params for t in trials) == 1, "not proposed again"


def test_a_search_whose_scoring_always_fails_ends(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data)
    search.run(["fit"])
    scorer = type(search.context.one_shot.scorer(fit_module.load_supernet(search.context), data))

    def never(self: Any, paths: Any) -> Any:
        raise RuntimeError("cannot be scored")

    monkeypatch.setattr(scorer, "__call__", never)
    with pytest.raises(StageError, match="scoring fails again and again"):
        search.run(["search"])


def test_sizes_enqueued_by_hand_are_scored(tmp_path: Path, data: Dataset) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data)
    by_hand = {"size:user": 2, "size:item": 2, "size:hour": 4, "size:noise": 0}
    search.context.studies.search.enqueue_trial(by_hand)
    search.run(["fit", "search"])
    first = search.context.studies.search.trials[0]
    assert (first.state, first.params) == (TrialState.COMPLETE, by_hand)
    assert first.values[1] == search.record.space.cost(search.record.space.from_params(first.params)).params
