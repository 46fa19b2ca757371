"""What a whole search through the Python API gives, on data so small that it takes a second; and its export."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from tiny_search import FIELDS, TRAIN, tiny_search

from optuna_aes import Dataset, Search, load_model
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc, predict

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
