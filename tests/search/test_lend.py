from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_search import STRATEGY, TRAIN, Heard, tiny_data, tiny_search, tiny_task

from optuna_aes import Search, load_model
from optuna_aes.search.records import METRICS, SEED, TRAINED_IN
from optuna_aes.search.results import Point
from optuna_aes.strategies.sham.strategy import SHAM


def lent(search: Search) -> list[str | None]:
    return [trial.user_attrs.get(TRAINED_IN) for trial in search.context.studies.retrain.trials]


def seen(points: tuple[Point, ...]) -> list[tuple[Any, ...]]:
    return [(p.sizes, p.auc_valid, p.auc_test, p.seconds, p.feasible, p.seeds) for p in points]


def test_the_same_sizes_and_seed_are_trained_once(tmp_path: Path) -> None:
    storage, data = f"sqlite:///{tmp_path}/aes.db", tiny_data()
    first = tiny_search(storage, data, name="first")
    first.run()
    heard = Heard()
    second = tiny_search(storage, data, name="second", trained_by=("first",), listener=heard)
    second.run()
    assert lent(second) == ["first/retrain"] * len(lent(first))
    assert heard.count("retrained") == 0
    assert seen(second.pareto().points) == seen(first.pareto().points)
    assert second.status()["stages"]["retrain"] == first.status()["stages"]["retrain"]
    second.run()
    assert len(lent(second)) == len(lent(first))

    # A copy of a copy names the study that has the weights, and is exported with them.
    third = tiny_search(storage, data, name="third", trained_by=("second",))
    third.run()
    assert set(lent(third)) == {"first/retrain"}
    models = [load_model(search.export(tmp_path / search.record.name)) for search in (first, third)]
    weights = [{n: t.numpy() for n, t in model.state_dict().items()} for model in models]
    assert all(np.array_equal(tensor, weights[1][n]) for n, tensor in weights[0].items())


def test_what_is_not_there_is_trained(tmp_path: Path) -> None:
    storage, data = f"sqlite:///{tmp_path}/aes.db", tiny_data()
    first = tiny_search(storage, data, name="first", retrain=1)
    first.run()
    more = tiny_search(storage, data, name="more", retrain=2, retrain_seeds=2, trained_by=("first",))
    more.run()
    known = {(tuple(t.params.values()), t.user_attrs[SEED]) for t in first.context.studies.retrain.trials}
    trials = more.context.studies.retrain.trials
    assert 0 < sum(TRAINED_IN in t.user_attrs for t in trials) < len(trials)
    assert all(METRICS in t.user_attrs for t in trials)
    for trial in trials:
        assert (TRAINED_IN in trial.user_attrs) == ((tuple(trial.params.values()), trial.user_attrs[SEED]) in known)


@pytest.mark.parametrize("other", ["train", "model", "data", "width"])
def test_what_would_come_out_otherwise_is_not_taken(tmp_path: Path, other: str) -> None:
    storage, data = f"sqlite:///{tmp_path}/aes.db", tiny_data()
    tiny_search(storage, data, name="first").run()
    task = tiny_task(tiny_data(seed=1) if other == "data" else data)
    if other == "train":
        task = replace(task, train=replace(TRAIN, lr=1e-2))
    elif other == "model":
        task = replace(task, model=replace(task.model, hidden=(4,)))
    elif other == "width":
        task = replace(task, candidates=(0, 2, 8))
    second = tiny_search(storage, data, name="second", task=task, trained_by=("first",))
    second.run()
    assert set(lent(second)) == {None}


def test_another_strategy_takes_what_happens_to_be_the_same(tmp_path: Path) -> None:
    storage, data = f"sqlite:///{tmp_path}/aes.db", tiny_data()
    first = tiny_search(storage, data, name="first", strategy=STRATEGY)
    first.run()
    # Every whole number is a candidate here: other parameters of the trials, the same models.
    task = tiny_task(data, candidates=(0, 1, 2, 3, 4))
    second = tiny_search(storage, data, name="second", task=task, strategy=SHAM(score_rows=1000), trained_by=("first",))
    second.run()
    uniform = {p.params: p for p in first.pareto().points if p.uniform}
    mine = {p.params: p for p in second.pareto().points if p.uniform}
    assert mine.keys() == uniform.keys()
    assert all(seen((mine[n],)) == seen((uniform[n],)) for n in mine)
    assert None in lent(second)
