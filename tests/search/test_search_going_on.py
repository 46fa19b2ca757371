"""A search that was stopped goes on, one that is asked for more does the rest, one of other settings is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from tiny_search import FIELDS, STRATEGY, TRAIN, Heard, Trials, counts, finished, tiny_data, tiny_search, tiny_task

from optuna_aes import Dataset, MemoryBudget, ModelOptions, Search
from optuna_aes.data.synthetic import PlantedField
from optuna_aes.errors import DataError, InputError, StorageError, StudyMismatchError
from optuna_aes.search import retrain as retrain_module

# Ctrl-C and going on


STOPS = [
    ("stage", 1),  # before the fit
    ("step", 3),  # in its first epoch
    ("epoch", 1),
    ("epoch", 2),  # after the last epoch, before the trial ends
    ("scored", 1),
    ("scored", 3),  # after the last group
    ("step", 14),  # within a retraining
    ("retrained", 1),  # trained and not yet told to Optuna
    ("retrained", 4),
]


@pytest.mark.parametrize("stop", STOPS, ids=[f"{call}-{n}" for call, n in STOPS])
def test_stopped_and_started_again_it_ends_the_same(
    stop: tuple[str, int], sqlite: str, data: Dataset, unbroken: dict[str, Trials]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_search(sqlite, data, listener=Heard(stop)).run()
    before = finished(Search.load("tiny", sqlite, dataset=data))
    search = tiny_search(sqlite, data)
    search.run()
    after = finished(search)
    assert after == unbroken
    assert after["search"][: len(before["search"])] == before["search"]
    assert all(trial in after[stage] for stage, trials in before.items() for trial in trials)
    assert [s["running"] for s in search.status()["stages"].values()] == [0, 0, 0]


def test_a_stopped_fit_goes_on_from_its_last_epoch(sqlite: str, data: Dataset) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_search(sqlite, data, listener=Heard(("step", 8))).run()
    heard = Heard()
    tiny_search(sqlite, data, listener=heard).run(["fit"])
    assert [values[0] for call, values in heard.calls if call == "epoch"] == [2]
    fit = optuna.load_study(study_name="tiny/fit", storage=sqlite).trials[-1]
    assert sorted(fit.intermediate_values) == [1, 2]


def test_a_finished_search_does_nothing_again(done: Search) -> None:
    heard = Heard()
    again = Search.load("tiny", done.record.storage, listener=heard)
    assert again.run() == done.pareto()
    assert {call for call, _ in heard.calls} == {"stage"}


def test_stages_can_be_run_one_by_one(sqlite: str, data: Dataset, unbroken: dict[str, Trials]) -> None:
    search = tiny_search(sqlite, data)
    for stage in ("fit", "search", "retrain"):
        search.run([stage])
    assert finished(search) == unbroken
    with pytest.raises(InputError, match="'fitt'"):
        search.run(["fitt"])


def test_a_training_that_failed_is_tried_again(
    sqlite: str, data: Dataset, unbroken: dict[str, Trials], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    search = tiny_search(sqlite, data)
    with monkeypatch.context() as patch:
        patch.setattr(retrain_module, "build_model", fails)
        with pytest.raises(MemoryError):
            search.run()
    assert search.status()["stages"]["retrain"]["failed"] == 5
    search.run()
    assert counts(search, "retrain") == (5, 5)
    assert search.status()["stages"]["retrain"]["failed"] == 0
    assert finished(search) == unbroken


# Asking for more


def test_more_trials_and_more_retraining_go_on(sqlite: str, data: Dataset) -> None:
    tiny_search(sqlite, data).run()
    first = finished(Search.load("tiny", sqlite, dataset=data))
    heard = Heard()
    search = tiny_search(sqlite, data, trials=15, retrain=3, retrain_seeds=2, listener=heard)
    result = search.run()
    second = finished(search)
    assert second["fit"] == first["fit"]
    assert second["search"][:10] == first["search"]
    assert all(trial in second["retrain"] for trial in first["retrain"])
    assert len(second["search"]) == 15
    wanted = [p for p in result.points if p.seeds == 2]
    assert len(wanted) >= 6
    assert {p.seeds for p in result.points} <= {1, 2}  # a size that was picked then and is not now keeps its one seed
    assert all(p.auc_test_std > 0 for p in wanted)
    assert heard.last("retrained")[:2] == (12, 12)
    finished_count, requested = counts(search, "retrain")
    assert finished_count == requested == len(second["retrain"])


def test_more_trials_later_are_the_trials_of_one_long_run(tmp_path: Path, data: Dataset) -> None:
    # With the same horizon from the start: the number of trials sets it on creation.
    parts, whole = (f"sqlite:///{tmp_path}/{name}.db" for name in ("parts", "whole"))
    stages = ["fit", "search"]
    with pytest.raises(KeyboardInterrupt):
        tiny_search(parts, data, trials=14, listener=Heard(("scored", 2))).run(stages)
    for trials in (9, 10, 14):
        tiny_search(parts, data, trials=trials).run(stages)
    search = tiny_search(whole, data, trials=14)
    search.run(stages)
    assert finished(Search.load("tiny", parts, dataset=data)) == finished(search)


def test_status_foretells_the_retraining(sqlite: str, data: Dataset) -> None:
    search = tiny_search(sqlite, data, retrain_seeds=2)
    assert counts(search, "retrain") == (0, (2 + 3) * 2)
    without = tiny_search(sqlite, data, retrain_seeds=2, reference=False)
    assert counts(without, "retrain") == (0, 4)


def test_a_point_of_several_seeds_exports_the_best_of_them(sqlite: str, data: Dataset) -> None:
    search = tiny_search(sqlite, data, retrain=1, retrain_seeds=3, reference=False)
    result = search.run()
    (point,) = result.points
    metrics = [t.user_attrs["aes:metrics"] for t in search.context.studies.retrain.trials]
    assert point.seeds == 3
    assert point.auc_test == pytest.approx(np.mean([m["auc_test"] for m in metrics]))
    assert point.auc_test_std == pytest.approx(np.std([m["auc_test"] for m in metrics], ddof=1))
    assert metrics[point.trial]["auc_valid"] == max(m["auc_valid"] for m in metrics)


def test_no_references_and_no_retraining(sqlite: str, data: Dataset) -> None:
    result = tiny_search(sqlite, data, reference=False, retrain=0).run()
    assert result.points == ()
    result = tiny_search(sqlite, data, reference=False).run()
    assert len(result.points) == 2
    assert not any(p.uniform for p in result.points)


# What may not change under a name


def other_task(dataset: Dataset, **changes: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"task": tiny_task(dataset, **changes)}


CHANGES: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "other data": (lambda: {"task": tiny_task(tiny_data(seed=1))}, "the data"),
    "fields": (lambda: {"task": tiny_task(tiny_data(fields=FIELDS[:3]))}, "fields.noise"),
    "candidates": (lambda: {"task": tiny_task(tiny_data(), candidates=(0, 1, 4))}, "candidates was"),
    "strategy": (lambda: {"strategy": replace(STRATEGY, score_rows=500)}, "strategy.options.score_rows was 1000"),
    "budget": (lambda: {"budget": 0.25}, "budget was 392 and is 196"),
    "seed": (lambda: {"seed": 1}, "seed was 0 and is 1"),
    "model": (lambda: {"task": tiny_task(tiny_data(), model=ModelOptions(hidden=(16,)))}, "model.hidden"),
    "training": (lambda: {"task": tiny_task(tiny_data(), train=replace(TRAIN, lr=0.01))}, "train.lr was 0.02"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_settings_under_the_same_name_are_refused(what: str, done: Search) -> None:
    make, message = CHANGES[what]
    before = dict(done.context.studies.search.user_attrs)
    with pytest.raises(StudyMismatchError, match=message) as caught:
        tiny_search(done.record.storage, done.context.task.dataset, **make())
    assert "\n" not in str(caught.value)
    assert optuna.load_study(study_name="tiny", storage=done.record.storage).user_attrs == before


def test_a_study_of_another_kind_is_left_alone(sqlite: str, data: Dataset) -> None:
    optuna.create_study(study_name="tiny", storage=sqlite).add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(StudyMismatchError, match="not a search of optuna_aes"):
        tiny_search(sqlite, data)
    assert optuna.get_all_study_names(sqlite) == ["tiny"]


@pytest.mark.parametrize("name", ["", "a/fit", "b/retrain", "line\nbreak", "x" * 401])
def test_names_that_cannot_be(name: str, sqlite: str, data: Dataset) -> None:
    with pytest.raises(InputError, match="name="):
        tiny_search(sqlite, data, name=name)
    assert not Path(sqlite.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize("candidates", [(0, 2, 8), (0, 2, 4)])
def test_a_budget_of_another_space_is_refused(candidates: tuple[int, ...], sqlite: str, data: Dataset) -> None:
    other = tiny_task(tiny_data(fields=(*FIELDS[:3], PlantedField("noise", 30, 0, main=0.0))), candidates=candidates)
    with pytest.raises(InputError, match="another space"):
        tiny_search(sqlite, data, budget=MemoryBudget(other.space, fraction=0.5))


def test_a_budget_object_is_what_its_fraction_is(sqlite: str, data: Dataset) -> None:
    tiny_search(sqlite, data)
    tiny_search(sqlite, data, budget=MemoryBudget(tiny_task(data).space, fraction=0.5))


# Loading


def test_load_needs_the_storage_alone(done: Search, tmp_path: Path) -> None:
    search = Search.load("tiny", str(done.record.storage.url))
    assert search.pareto() == done.pareto()
    assert search.history() == done.history()
    assert search.context.strategy == done.context.strategy
    assert search.context.task.train == done.context.task.train
    search.export(tmp_path / "model")


def test_load_refuses_what_is_not_there(done: Search, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no search named 'other': the storage holds tiny"):
        Search.load("other", done.record.storage)
    with pytest.raises(StorageError, match="does not exist"):
        Search.load("tiny", f"sqlite:///{tmp_path}/none.db")


def test_data_in_memory_has_to_be_given_again(sqlite: str, data: Dataset) -> None:
    tiny_search(sqlite, data)
    with pytest.raises(DataError, match=r"in memory only: give it with dataset="):
        Search.load("tiny", sqlite)
    with pytest.raises(DataError, match="fingerprint"):
        Search.load("tiny", sqlite, dataset=tiny_data(seed=1))
    assert Search.load("tiny", sqlite, dataset=data).status()["study"] == "tiny"


def test_data_that_was_moved_is_missed(sqlite: str, data: Dataset, tmp_path: Path) -> None:
    tiny_search(sqlite, data.save(tmp_path / "data"))
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"is not at .*data any more"):
        Search.load("tiny", sqlite)
    assert Search.load("tiny", sqlite, dataset=Dataset.open(tmp_path / "moved")).status()["study"] == "tiny"


def test_a_search_from_before_an_option_goes_on(sqlite: str, data: Dataset, unbroken: dict[str, Trials]) -> None:
    begun = tiny_search(sqlite, data, listener=Heard(("epoch", 1)))
    with pytest.raises(KeyboardInterrupt):
        begun.run()
    settings = begun.context.studies.search.user_attrs["aes:settings"]
    del settings["model"]["cross_layers"]
    begun.context.studies.search.set_user_attr("aes:settings", settings)
    assert Search.load("tiny", sqlite, dataset=data).context.task.model == begun.context.task.model
    search = tiny_search(sqlite, data)
    search.run()
    assert finished(search) == unbroken
