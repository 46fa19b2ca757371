from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_dataset

from optuna_aes.data.dataset import Schema, Split
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.ihas.routed import (
    FEATURES,
    RoutedModel,
    Router,
    RouterOptions,
    features_of,
    hashed,
    multipliers,
    routed_model,
)
from optuna_aes.strategies.ihas.strategy import IHAS

MODEL = ModelOptions(hidden=(6,), init_std=0.3)


def sizes_of(schema: Schema, *clusters: tuple[int, ...]) -> dict[str, int]:
    return {f"{f.name}@{c}": d for c, sizes in enumerate(clusters) for f, d in zip(schema.fields, sizes, strict=True)}


@torch.no_grad()
def routed(schema: Schema = PLAIN, features: str = "gates", *, seed: int = 0) -> RoutedModel:
    options = RouterOptions(features=features, dim=4, hidden=5)
    others = (0,) * (len(schema.fields) - 2)
    sizes = sizes_of(schema, (4, 2, *others), (1, 3, *others), (0, 1, *others))
    model = routed_model(schema, sizes, dim=4, options=MODEL, router=options, seed=seed)
    assert isinstance(model, RoutedModel)
    ids = ids_of(tiny_dataset(schema).test, 3)
    generator = torch.Generator().manual_seed(seed)
    if features == "random":
        model.router.multipliers.copy_(multipliers(schema.columns, seed))
        return model.eval()
    model.router.table.normal_(generator=generator)
    if model.router.options.gated:
        model.router.gates.out.weight.normal_(generator=generator)
    values = model.router.values(ids)
    gates = model.router.gates(values) if model.router.options.gated else None
    model.router.centroids.copy_(features_of(values, gates, features))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("features", FEATURES)
def test_every_row_gets_the_logit_of_its_clusters_model(features: str) -> None:
    model, ids = routed(features=features), ids_of(tiny_dataset(PLAIN).train)
    clusters = model.router(ids)
    assert len(clusters.unique()) > 1
    expected = torch.stack([each(ids) for each in model.models])[clusters, torch.arange(len(ids))]
    torch.testing.assert_close(model(ids), expected)


def test_bags_are_routed_too() -> None:
    model, ids = routed(WITH_BAG), ids_of(tiny_dataset(WITH_BAG).train)
    clusters = model.router(ids)
    expected = torch.stack([each(ids) for each in model.models])[clusters, torch.arange(len(ids))]
    torch.testing.assert_close(model(ids), expected)


def test_a_cluster_learns_from_its_own_rows_alone() -> None:
    """Trained as one model, cluster c's model changes as if the others' rows were not there."""
    data = tiny_dataset(PLAIN)
    options = TrainOptions(epochs=1, batch_size=64, lr=0.01, patience=0)
    model = routed()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    clusters = model.router(ids_of(data.train)).numpy()
    lone = int(np.bincount(clusters).argmax())
    only = Split(data.train.ids[clusters == lone], data.train.labels[clusters == lone])
    Trainer(model, only, data.valid, options).run()
    for name, value in model.state_dict().items():
        mine = name.startswith(f"models.{lone}.")
        assert mine or torch.equal(value, before[name]), name
    assert not torch.equal(
        model.state_dict()[f"models.{lone}.backbone.tower.out.weight"],
        before[f"models.{lone}.backbone.tower.out.weight"],
    )


def test_the_router_is_not_trained() -> None:
    data, model = tiny_dataset(PLAIN), routed()
    before = {name: value.clone() for name, value in model.router.state_dict().items()}
    Trainer(model, data.train, data.valid, TrainOptions(epochs=1, batch_size=64, lr=0.1)).run()
    assert all(torch.equal(value, before[name]) for name, value in model.router.state_dict().items())
    assert not model.router.gates.training


def test_a_row_on_its_own_can_be_trained_with_batch_norm() -> None:
    data = tiny_dataset(PLAIN)
    model = routed_model(
        PLAIN, sizes_of(PLAIN, (2, 2, 2), (2, 2, 2)), dim=4, options=ModelOptions(hidden=(4,), batch_norm=True),
        router=RouterOptions(features="random", dim=4),
    )  # fmt: skip
    Trainer(model, data.train, data.valid, TrainOptions(epochs=1, batch_size=2)).run()


def test_one_cluster_needs_no_router() -> None:
    model = routed_model(
        PLAIN, sizes_of(PLAIN, (4, 2, 0), (0, 0, 0)), dim=4, options=MODEL, router=RouterOptions("gates", 4), seed=3
    )
    assert isinstance(model, CTRModel)
    plain = CTRModel(PLAIN, {"user": 4, "item": 2, "hour": 0}, dim=4, options=MODEL, seed=3)
    ids = ids_of(tiny_dataset(PLAIN).test)
    torch.testing.assert_close(model(ids), plain(ids))


def test_chance_is_even_and_knows_only_the_ids() -> None:
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 50, (20_000, 3)).astype(np.int32))
    factors = multipliers(3, 5)
    for count in (2, 3, 4):
        clusters = hashed(ids, factors, count)
        assert torch.equal(clusters, hashed(ids.clone(), factors, count))
        shares = torch.bincount(clusters, minlength=count) / len(ids)
        torch.testing.assert_close(shares, torch.full((count,), 1 / count), atol=0.02, rtol=0)


@pytest.mark.parametrize("features", ["masked", "gates", "unmasked"])
def test_router_params_are_its_tables_and_network(features: str) -> None:
    options = RouterOptions(features=features, dim=4, hidden=5)
    state = Router(PLAIN, options, 2).state_dict()
    counted = {n: v for n, v in state.items() if n != "centroids" and not n.endswith("num_batches_tracked")}
    assert options.params(88, 3) == sum(v.numel() for v in counted.values())
    assert RouterOptions("random", 4).params(88, 3) == 0


def test_the_default_router_is_gated() -> None:
    assert IHAS().router_options(8).gated
    assert not IHAS(control="unmasked").router_options(8).gated
