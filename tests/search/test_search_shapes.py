"""Whole searches in every place for studies and checkpoints, and over odd spaces and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import WITH_BAG, fields_for, tiny_dataset
from tiny_search import STRATEGY, TRAIN, Heard, Trials, counts, finished, tiny_search, tiny_task

from optuna_aes import Dataset, ModelOptions, Search, load_model
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import StudyMismatchError
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.search.records import ROWS
from optuna_aes.search.results import Result

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
    # The first trial is the largest uniform size that fits: picked, and a reference point as well.
    assert [(p.search_trial, set(p.sizes.values())) for p in result.points] == [(None, {1}), (0, {2}), (None, {4})]
    assert result.best == result.points[1]


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
