"""Every strategy through all stages, on data so small that it takes a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from tiny_search import STRATEGY, Heard, tiny_search, tiny_task

from optuna_aes import Dataset, EmbeddingSpace, MemoryBudget, Search, load_model
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.search.propose import PROJECTED, STOCK, Stock
from optuna_aes.strategies.adass.strategy import AdaSS
from optuna_aes.strategies.base import OneShot, Strategy
from optuna_aes.strategies.registry import STRATEGIES, strategy_class


def quick(name: str) -> Strategy:
    strategy = strategy_class(name)()
    if isinstance(strategy, AdaSS):
        policy = replace(strategy.policy, group=4, levels=(1.0, 0.5))
        return replace(strategy, sampling=STRATEGY.sampling, policy=policy, score_rows=1000)
    return strategy


def content(search: Search) -> dict[str, Any]:
    """Parameters and values of all trials that are done, by stage."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    studies = search.context.studies
    return {
        stage: [(t.params, t.values) for t in study.get_trials(states=done)]
        for stage, study in (("fit", studies.fit), ("search", studies.search), ("retrain", studies.retrain))
    }


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_goes_through_all_stages_and_redoes_nothing(tmp_path: Path, data: Dataset, name: str) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    options: dict[str, Any] = {"strategy": quick(name), "trials": 6, "reference": False}
    search = tiny_search(storage, data, **options)
    result = search.run()

    assert result.strategy == name
    assert 1 <= len(result.points) <= 2
    for point in result.points:
        assert point.feasible
        assert point.search_trial is not None
    stages = search.status()["stages"]
    assert stages["fit"]["finished"] == stages["fit"]["requested"] == int(isinstance(quick(name), OneShot))
    assert 1 <= stages["search"]["finished"] <= 6
    assert all(stages[s][state] == 0 for s in stages for state in ("running", "failed"))

    before = content(search)
    again = tiny_search(storage, data, **options)
    again.run()
    assert content(again) == before
    loaded = Search.load("tiny", storage, dataset=data, device="cpu")
    assert loaded.context.strategy == again.context.strategy


@pytest.mark.parametrize("name", ["nsga2", "magnitude", "retrain-tpe"])
def test_a_search_stopped_in_its_middle_ends_with_the_same_trials(tmp_path: Path, data: Dataset, name: str) -> None:
    options: dict[str, Any] = {"strategy": quick(name), "trials": 12, "retrain": 0, "reference": False}
    if name == "magnitude":
        options["task"] = tiny_task(data, candidates=range(5))
    whole = tiny_search(f"sqlite:///{tmp_path}/whole.db", data, **options)
    whole.run()
    storage = f"sqlite:///{tmp_path}/parts.db"
    with pytest.raises(KeyboardInterrupt):
        tiny_search(storage, data, listener=Heard(stop_at=("scored", 1)), **options).run()
    parts = tiny_search(storage, data, **options)
    parts.run()
    if name == "retrain-tpe":  # a stopped training goes on behind the sizes that the sampler proposed meanwhile
        assert len(content(parts)["search"]) >= 12
        assert all(t.state.is_finished() for t in parts.context.studies.search.trials)
    else:
        assert content(parts)["search"] == content(whole)["search"]


def test_what_a_stock_sampler_proposes_over_budget_is_pruned_and_not_counted(tmp_path: Path, data: Dataset) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data, strategy=quick("tpe"), budget=0.2, trials=10, retrain=0)
    search.run()
    counts = search.status()["stages"]["search"]
    assert counts["finished"] == 10
    assert counts["pruned"] > 0
    for trial in search.context.studies.search.trials:
        over = trial.constraints["memory_budget"] > 0
        assert over == (trial.state == TrialState.PRUNED)


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_sampler_is_a_function_of_the_trials(data: Dataset, name: str) -> None:
    space = tiny_task(data).space
    budget = MemoryBudget(space, fraction=0.6)
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng = np.random.default_rng(0)
    for _ in range(15):
        sizes = space.from_indices(rng.integers(3, size=4))
        study.add_trial(
            optuna.create_trial(
                values=[float(rng.random()), float(space.cost(sizes).params)],
                params=space.to_params(sizes),
                distributions=dict(space.distributions()),
                constraints={"memory_budget": budget.violation(sizes)},
            )
        )
    first, second = (Stock(space, budget, name, seed=1)(study, 15) for _ in range(2))
    assert [p.sizes for p in first] == [p.sizes for p in second]
    assert sum(budget.fits(p.sizes) for p in first) == 8
    assert name not in PROJECTED or len(first) == 8
    other = Stock(space, budget, name, seed=1)(study, 16)
    assert [p.sizes for p in other] != [p.sizes for p in first]


def test_nsga2_goes_on_to_later_generations(tmp_path: Path, data: Dataset) -> None:
    search = tiny_search(f"sqlite:///{tmp_path}/a.db", data, strategy=quick("nsga2"), budget=0.9, trials=60, retrain=0)
    search.run()
    trials = search.context.studies.search.get_trials(states=(TrialState.COMPLETE,))
    generations = {t.system_attrs["NSGAIISampler:generation"] for t in trials}
    assert generations == {0, 1}


def test_a_supernet_can_be_shared_by_searches_of_the_same_settings(tmp_path: Path, data: Dataset) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    options: dict[str, Any] = {"trials": 4, "retrain": 0, "reference": False}
    first = tiny_search(storage, data, name="first", strategy=quick("adass"), **options)
    with pytest.raises(InputError, match="supernet_of='first' has not trained its supernet yet"):
        tiny_search(storage, data, name="second", strategy=quick("random"), supernet_of="first", **options)
    first.run()
    for name, lender in (("second", "first"), ("third", "second")):
        search = tiny_search(storage, data, name=name, strategy=quick("random"), supernet_of=lender, **options)
        search.run()
        assert search.context.studies.fit.trials[0].user_attrs["aes:supernet_of"] == "first"
    alone = tiny_search(storage, data, name="alone", strategy=quick("random"), **options)
    alone.run()
    assert content(alone)["search"] == content(search)["search"]
    with pytest.raises(InputError, match=r"has another supernet: its strategy.* is"):
        tiny_search(storage, data, name="fourth", strategy=quick("magnitude"), supernet_of="first", **options)
    assert "fourth" not in optuna.get_all_study_names(storage)


@pytest.mark.parametrize("name", ["adass", "mde", "uniform", "tpe"])
def test_blocks_within_fields_have_sizes_of_their_own_from_search_to_export(
    tmp_path: Path, data: Dataset, name: str
) -> None:
    strategy = replace(quick(name), blocks="frequency", parts=2)
    search = tiny_search(f"sqlite:///{tmp_path}/aes.db", data, strategy=strategy, trials=6, reference=False)
    result = search.run()
    divided = strategy.partition(data)
    assert divided is not None
    point = result.points[0]
    assert [*point.sizes] == [*divided.names]
    assert point.params == sum(rows * point.sizes[block] for block, rows in divided.rows.items())
    model = load_model(search.export(tmp_path / "model", trial=point.trial))
    found = predict(model, data.test)
    assert auc(found, data.test.labels) == pytest.approx(point.auc_test, abs=1e-9)


@pytest.mark.parametrize("name", sorted(STOCK))
def test_sizes_that_failed_are_not_proposed_again(name: str) -> None:
    space = EmbeddingSpace({"a": 10, "b": 20}, candidates=(0, 2))
    budget, study = MemoryBudget(space, fraction=1.0), optuna.create_study(directions=["maximize", "minimize"])
    failed = [{"a": 0, "b": 0}, {"a": 2, "b": 0}, {"a": 0, "b": 2}]
    for sizes in failed:
        state, params = optuna.trial.TrialState.FAIL, space.to_params(sizes)
        study.add_trial(optuna.create_trial(state=state, params=params, distributions=space.distributions()))
    proposals = Stock(space, budget, name, seed=1)(study, 3)
    assert {tuple(p.sizes.values()) for p in proposals} == {(2, 2)}
