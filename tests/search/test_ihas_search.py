"""iHAS through all stages: sizes per cluster, a routed model, an export that predicts the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_search import Heard, tiny_data, tiny_search, tiny_task

from optuna_aes import Dataset, Search, load_model
from optuna_aes.data.synthetic import PlantedField
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.studies import complete
from optuna_aes.strategies.ihas.routed import RoutedModel
from optuna_aes.strategies.ihas.strategy import IHAS

FIELDS = (PlantedField("user", 60, 2), PlantedField("item", 40, 2), PlantedField("noise", 80, 0, main=0.0))
APART = IHAS(clusters=(1, 2), thresholds=6, count_router=False, levels=(1.0,))
# Tables 60 + 40 + 80 rows (+ 3), full size 4: the gate network reads 12 columns and has 16 hidden units.
NAMES = [f"size:{field}@{c}" for c in (0, 1) for field in ("user", "item", "noise")]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_data(fields=FIELDS)


def searched(storage: str, data: Dataset, **changes: Any) -> Search:
    task = tiny_task(data, candidates=(0, 1, 2, 3, 4), train=TrainOptions(epochs=2, batch_size=256, lr=2e-2))
    return tiny_search(storage, data, task=task, **{"strategy": APART, "budget": 1.0, "trials": 20, **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Search:
    search = searched(f"sqlite:///{tmp_path_factory.mktemp('ihas')}/aes.db", data, retrain=40)
    search.run()
    return search


def test_trials_choose_sizes_per_cluster_and_their_cost_is_the_sum(done: Search) -> None:
    rows = np.array([f.cardinality for f in done.context.task.dataset.schema.fields])
    used = set()
    for trial in complete(done.context.studies.search):
        assert list(trial.params) == NAMES
        sizes = np.array([trial.params[name] for name in NAMES]).reshape(2, 3)
        assert trial.values[1] == (sizes * rows).sum()
        used.add(int(sizes.any(1).sum()))
    assert 2 in used


def test_points_tell_the_router_and_references_have_none(done: Search) -> None:
    result = done.pareto()
    router = done.context.space.router
    assert result.full["params"] == sum(f.cardinality for f in done.context.task.dataset.schema.fields) * 4
    for point in result.points:
        clusters = any(d for name, d in point.sizes.items() if name.endswith("@1"))
        assert point.router == (router if clusters else 0)
        assert not (point.uniform and clusters)
    assert {p.params for p in result.points if p.uniform} >= {result.full["params"]}
    assert any(p.router for p in result.points)


def test_an_export_routes_and_predicts_what_was_measured(done: Search, tmp_path: Path) -> None:
    test = done.context.task.dataset.test
    for kind in (True, False):
        point = next(p for p in done.pareto().points if bool(p.router) == kind)
        model = load_model(done.export(tmp_path / f"model{kind}", trial=point.trial))
        assert isinstance(model, RoutedModel) == kind
        assert auc(predict(model, test), test.labels) == pytest.approx(point.auc_test, abs=1e-6)
        if isinstance(model, RoutedModel):
            ids = torch.from_numpy(test.ids.copy())
            clusters = model.router(ids)
            each = torch.stack([one(ids) for one in model.models])
            torch.testing.assert_close(model(ids), each[clusters, torch.arange(len(ids))])


def test_a_loaded_search_has_nothing_left_to_do(done: Search, data: Dataset) -> None:
    heard = Heard()
    again = Search.load("tiny", done.record.storage, dataset=data, device="cpu", listener=heard)
    assert again.run() == done.pareto()
    assert heard.count("epoch") == heard.count("scored") == heard.count("retrained") == 0


def test_a_stopped_search_goes_on_to_the_same_end(tmp_path: Path, data: Dataset) -> None:
    options: dict[str, Any] = {"retrain": 1, "reference": False, "strategy": IHAS(
        clusters=(2,), thresholds=4, count_router=False)}  # fmt: skip
    whole = searched(f"sqlite:///{tmp_path}/whole.db", data, **options).run()
    stopped = f"sqlite:///{tmp_path}/stopped.db"
    for call, number in (("epoch", 1), ("step", 12 + 3 + 12)):
        with pytest.raises(KeyboardInterrupt):
            searched(stopped, data, listener=Heard((call, number)), **options).run()
    result = searched(stopped, data, **options).run()
    assert [(p.sizes, p.auc_test) for p in result.points] == [(p.sizes, p.auc_test) for p in whole.points]


@pytest.mark.parametrize("control", ["one", "random", "unmasked"])
def test_controls_run_by_one_option(tmp_path: Path, data: Dataset, control: str) -> None:
    strategy = IHAS(clusters=(2,), thresholds=3, control=control, count_router=False)
    search = searched(f"sqlite:///{tmp_path}/aes.db", data, strategy=strategy, retrain=1, reference=False)
    (point,) = search.run().points
    tables = 4 * sum(f.cardinality for f in data.schema.fields)
    assert point.router == {"one": 0, "random": 0, "unmasked": tables}[control]
    assert len(point.sizes) == (3 if control == "one" else 6)


def test_a_counted_router_is_in_the_front_and_in_the_budget(tmp_path: Path, data: Dataset) -> None:
    counted = IHAS(clusters=(1, 2), thresholds=4)
    options: dict[str, Any] = {"strategy": counted, "retrain": 20, "reference": False}
    whole = searched(f"sqlite:///{tmp_path}/whole.db", data, budget=20_000, **options).run()
    routed = [p for p in whole.points if p.router]
    assert routed
    assert all(p.params > p.router for p in routed)
    small = searched(f"sqlite:///{tmp_path}/small.db", data, budget=0.5, **options).run()
    assert small.points
    assert not any(p.router for p in small.points)


def test_a_budget_that_no_router_fits_is_refused_before_anything_is_trained(tmp_path: Path, data: Dataset) -> None:
    with pytest.raises(InputError, match="smallest architecture"):
        searched(f"sqlite:///{tmp_path}/aes.db", data, strategy=IHAS(clusters=(2, 4)), budget=0.5)
    assert not (tmp_path / "aes.db").exists()
