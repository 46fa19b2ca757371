"""A whole search through the Python API, on data so small that it takes a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from helpers import WITH_BAG, fields_for, tiny_dataset
from optuna.trial import TrialState
from tiny_search import FIELDS, STRATEGY, TRAIN, Heard, tiny_data, tiny_search, tiny_task

from optuna_aes import Dataset, MemoryBudget, ModelOptions, Search, load_model
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import DataError, InputError, StorageError, StudyMismatchError
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.training import auc, predict
from optuna_aes.search import retrain as retrain_module
from optuna_aes.search.records import ROWS
from optuna_aes.search.results import Result

Trials = list[tuple[dict[str, Any], list[float]]]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_data()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A finished search whose dataset lies in a folder; tests only read it."""
    folder = tmp_path_factory.mktemp("done")
    search = tiny_search(f"sqlite:///{folder}/aes.db", tiny_data().save(folder / "data"))
    search.run()
    return search


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/aes.db"


def finished(search: Search) -> dict[str, Trials]:
    """Sizes and values of the finished trials of every stage: those of fit and search in the order of their numbers."""
    studies = search.context.studies
    stages = {"fit": studies.fit, "search": studies.search, "retrain": studies.retrain}
    found = {
        stage: [(t.params, t.values) for t in study.get_trials(states=(TrialState.COMPLETE,))]
        for stage, study in stages.items()
    }
    # A training that was stopped goes on at the end of the queue.
    return {**found, "retrain": sorted(found["retrain"], key=str)}


def counts(search: Search, stage: str) -> tuple[int, int]:
    found = search.status()["stages"][stage]
    return found["finished"], found["requested"]


# What comes out


def test_every_stage_does_what_was_asked(done: Search) -> None:
    stages = done.status()["stages"]
    assert [(s["finished"], s["requested"]) for s in stages.values()] == [(1, 1), (10, 10), (5, 5)]
    assert all(s["running"] == s["failed"] == s["pruned"] == 0 for s in stages.values())
    assert stages["fit"]["epochs"] == TRAIN.epochs


def test_points_say_what_was_trained(done: Search) -> None:
    result, space = done.pareto(), done.record.space
    assert [p.params for p in result.points] == sorted(p.params for p in result.points)
    for point in result.points:
        assert list(point.sizes) == [f.name for f in FIELDS]
        assert point.params == space.cost(point.sizes).params == point.bytes // 4
        assert point.feasible == (point.params <= result.budget["params"])
        assert 0 < point.auc_valid < 1
        assert 0 < point.auc_test < 1
        assert point.logloss_test > 0
        assert (point.seeds, point.auc_test_std) == (1, 0.0)
    assert result.full == {"params": space.cost(space.uniform(4)).params, "bytes": 4 * result.full["params"]}
    assert result.budget["params"] == result.full["params"] // 2
    assert (result.study, result.strategy, result.backbone) == ("tiny", "adass", "deepfm")
    assert result.facts["bayes_auc"] == done.context.task.dataset.facts["bayes_auc"]


def test_references_are_the_uniform_sizes(done: Search) -> None:
    references = [p for p in done.pareto().points if p.uniform]
    assert [set(p.sizes.values()) for p in references] == [{1}, {2}, {4}]
    assert all(p.search_trial is None and p.auc_inherited is None for p in references)


def test_searched_points_know_their_search_trial(done: Search) -> None:
    trials = {t.number: t for t in done.context.studies.search.trials}
    searched = [p for p in done.pareto().points if not p.uniform]
    assert len(searched) == 2
    for point in searched:
        assert point.search_trial is not None
        source = trials[point.search_trial]
        sizes = done.record.space.from_params(source.params)
        # A pick is its trial's sizes, less tables that the supernet could not tell from nothing.
        assert all(point.sizes[name] in (size, 0) for name, size in sizes.items())
        if point.sizes == sizes:
            assert source.values == [point.auc_inherited, point.params]


def test_the_front_is_feasible_and_nothing_on_it_is_beaten(done: Search) -> None:
    result = done.pareto()
    assert result.front
    for point in result.front:
        assert point.feasible
        assert not any(
            p.auc_test >= point.auc_test and p.params <= point.params and p != point
            for p in result.points
            if p.feasible
        )
    beaten = [p for p in result.points if p.feasible and p not in result.front]
    assert all(any(f.auc_test >= p.auc_test and f.params <= p.params for f in result.front) for p in beaten)


def test_best_is_chosen_on_validation_among_searched_points(done: Search) -> None:
    result = done.pareto()
    searched = [p for p in result.points if p.search_trial is not None and p.feasible]
    assert result.best is not None
    assert result.best.auc_valid == max(p.auc_valid for p in searched)


def test_a_program_can_read_the_result(done: Search) -> None:
    found = json.loads(json.dumps(done.pareto().to_json()))
    assert {"study", "strategy", "backbone", "budget", "full", "front", "points", "best"} <= set(found)
    fields = {
        "trial",
        "sizes",
        "params",
        "bytes",
        "feasible",
        "auc_valid",
        "auc_test",
        "logloss_test",
        "seeds",
        "uniform",
    }
    assert all(fields <= set(point) for point in found["points"])


def test_history_tells_the_fit_and_the_scores(done: Search) -> None:
    history = done.history()
    assert history.numbers == tuple(range(10))
    assert len(history.epochs) == TRAIN.epochs
    assert max(history.params) <= done.record.budget.params
    assert all(seconds > 0 for seconds in history.seconds.values())


def test_plain_optuna_opens_the_same_studies(done: Search) -> None:
    url = str(done.record.storage.url)
    study = optuna.load_study(study_name="tiny", storage=url)
    assert len(study.best_trials) >= 1
    assert all(t.constraints["memory_budget"] <= 0 for t in study.trials)
    assert set(study.trials[0].params) == {f"size:{f.name}" for f in FIELDS}
    fit = optuna.load_study(study_name="tiny/fit", storage=url)
    assert len(fit.trials[0].intermediate_values) == TRAIN.epochs
    again = optuna.create_study(
        study_name="tiny/retrain", storage=url, directions=["maximize", "minimize"], load_if_exists=True
    )
    assert len(again.trials) == 5


# Export


@pytest.mark.parametrize("uniform", [False, True])
def test_an_export_predicts_what_the_retrained_trial_did(done: Search, tmp_path: Path, uniform: bool) -> None:
    point = next(p for p in done.pareto().points if p.uniform == uniform)
    out = done.export(tmp_path / "model", trial=point.trial)
    model, test = load_model(out), done.context.task.dataset.test
    assert auc(predict(model, test, TRAIN.eval_batch_size), test.labels) == point.auc_test
    assert json.loads((out / "sizes.json").read_text())["sizes"] == point.sizes


def test_export_takes_the_best_and_names_it(done: Search, tmp_path: Path) -> None:
    facts = json.loads((done.export(tmp_path / "model") / "sizes.json").read_text())
    best = done.pareto().best
    assert best is not None
    assert (facts["trial"], facts["params"]) == (best.trial, best.params)
    assert facts["metrics"]["auc_test"] == best.auc_test
    modes = {path.stat().st_mode for path in (tmp_path / "model").iterdir()}
    assert len(modes) == 1  # whoever may read the sizes may read the weights


def test_export_refuses_a_trial_that_is_not_there(done: Search, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trial=99 is not a retrained trial.*0, 1, 2, 3, 4"):
        done.export(tmp_path / "model", trial=99)
    assert not (tmp_path / "model").exists()


def test_nothing_to_export_yet(sqlite: str, data: Dataset, tmp_path: Path) -> None:
    search = tiny_search(sqlite, data)
    assert search.pareto().points == ()
    assert search.pareto().best is None
    with pytest.raises(InputError, match="no retrained sizes"):
        search.export(tmp_path / "model")


# Ctrl-C and going on


@pytest.fixture(scope="module")
def unbroken(done: Search) -> dict[str, Trials]:
    return finished(done)


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


# Places


def test_every_database_holds_a_whole_search(
    storage_url: str, data: Dataset, unbroken: dict[str, Trials], tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        tiny_search(storage_url, data, listener=Heard(("retrained", 2))).run()
    search = tiny_search(storage_url, data)
    result = search.run()
    assert finished(search) == unbroken
    best = result.best
    assert best is not None
    model = load_model(search.export(tmp_path / "model"))
    assert auc(predict(model, data.test, TRAIN.eval_batch_size), data.test.labels) == best.auc_test


def test_checkpoints_in_a_folder(sqlite: str, data: Dataset, tmp_path: Path, unbroken: dict[str, Trials]) -> None:
    folder = tmp_path / "artifacts"
    with pytest.raises(KeyboardInterrupt):
        tiny_search(sqlite, data, artifacts=str(folder), listener=Heard(("epoch", 1))).run()
    assert any(folder.iterdir())
    search = tiny_search(sqlite, data, artifacts=str(folder))
    search.run()
    assert finished(search) == unbroken
    with pytest.raises(StudyMismatchError, match="artifacts was"):
        tiny_search(sqlite, data)
    # What stays: the supernet and one model for every training.
    assert len(list(folder.iterdir())) == 1 + 5
    load_model(search.export(tmp_path / "model"))


def test_a_supernet_that_is_gone_is_trained_again(sqlite: str, data: Dataset, tmp_path: Path) -> None:
    heard = Heard()
    search = tiny_search(sqlite, data, artifacts=str(tmp_path / "a"), listener=heard)
    search.run(["fit"])
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    search.run(["search"])
    assert "training it again" in heard.last("note")[0]
    assert counts(search, "search") == (10, 10)
    values = [t.value for t in search.context.studies.fit.trials]
    assert len(values) == 2
    assert values[0] == values[1]


# Odd spaces and tables


def run(dataset: Dataset, url: str, **changes: Any) -> Result:
    task = tiny_task(dataset, **{k: changes.pop(k) for k in ("candidates", "model") if k in changes})
    return tiny_search(url, dataset, task=task, **changes).run()


def test_one_field_and_two_candidates(sqlite: str, tmp_path: Path) -> None:
    dataset = planted((PlantedField("only", 20, 0, main=1.0),), rows=(1000, 500, 500))
    result = run(dataset, sqlite, candidates=(0, 4), budget=1.0, trials=6, retrain=3)
    assert {tuple(p.sizes.values()) for p in result.points} == {(0,), (1,), (2,), (4,)}
    # The choice is a uniform size here, and is the search's own nevertheless.
    assert result.best is not None
    assert result.best.search_trial is not None
    search = Search.load("tiny", sqlite, dataset=dataset)
    assert counts(search, "retrain") == (4, 4)
    load_model(search.export(tmp_path / "model"))


def test_candidates_without_zero_and_a_full_budget(sqlite: str, data: Dataset) -> None:
    result = run(data, sqlite, candidates=(1, 3), budget=1.0, trials=4, retrain=1)
    assert [p.sizes["user"] for p in result.points if p.uniform and p.search_trial is None][-1] in (2, 3)
    assert all(p.feasible for p in result.points)


def test_a_field_of_one_row(sqlite: str) -> None:
    tiny = tiny_dataset()
    rows = {"user": 30, "item": 50, "hour": 8}
    assert tiny.schema.cardinalities == rows
    schema = replace(
        tiny.schema, fields=(*tiny.schema.fields, replace(tiny.schema.fields[0], name="one", cardinality=1))
    )
    splits = {
        name: replace(split, ids=np.hstack([split.ids, np.zeros((len(split), 1), dtype=np.int32)]))
        for name, split in tiny.splits()
    }
    result = run(Dataset.from_arrays(schema, splits), sqlite, trials=4, retrain=1)
    assert all("one" in p.sizes for p in result.points)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("align", ["pad", "linear"])
def test_bags_backbones_and_alignment(sqlite: str, backbone: str, align: str, tmp_path: Path) -> None:
    dataset = tiny_dataset(fields_for(backbone, WITH_BAG))
    model = ModelOptions(backbone=backbone, hidden=(8,), align=align)
    result = run(dataset, sqlite, model=model, trials=4, retrain=1)
    best = result.best
    assert best is not None
    assert (best.projections > 0) == (align == "linear" and any(0 < s < 4 for s in best.sizes.values()))
    loaded = load_model(Search.load("tiny", sqlite, dataset=dataset).export(tmp_path / "model"))
    with torch.no_grad():
        assert loaded(torch.from_numpy(np.array(dataset.test.ids))).shape == (len(dataset.test),)


def test_one_trial_one_row_of_each_class(sqlite: str) -> None:
    dataset = tiny_dataset(rows=(4, 2, 2))
    result = run(dataset, sqlite, trials=1, retrain=1)
    assert len(result.points) == 4


def test_a_search_that_races_scores_some_on_a_part_and_picks_none_of_them(sqlite: str, data: Dataset) -> None:
    search = tiny_search(sqlite, data, strategy=replace(STRATEGY, race=0.5), trials=24, retrain=6)
    result = search.run()
    trials = search.record.studies.search.get_trials(deepcopy=False)
    estimated = {t.number: t for t in trials if ROWS in t.user_attrs}
    assert 0 < len(estimated) < len(trials) == 24
    assert {t.user_attrs[ROWS] for t in estimated.values()} == {500}
    for trial in estimated.values():
        assert any(t.values[0] > trial.values[0] and t.values[1] <= trial.values[1] for t in trials)
    assert not {p.search_trial for p in result.points} & estimated.keys()
