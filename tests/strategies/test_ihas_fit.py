from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PLAIN, ids_of, tiny_dataset

from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import TrainState
from optuna_aes.strategies.ihas.gates import regulariser
from optuna_aes.strategies.ihas.routed import RoutedModel, RouterOptions
from optuna_aes.strategies.ihas.strategy import IHAS
from optuna_aes.strategies.ihas.supernet import GatedSupernet

# As wide as the input, which a warm start must not confuse with it.
MODEL = ModelOptions(hidden=(12,), init_std=0.3)
TRAIN = TrainOptions(epochs=3, batch_size=64, lr=0.02, patience=0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_dataset(PLAIN)


def untrained(strategy: IHAS, **changes: Any) -> GatedSupernet:
    net = strategy.supernet(PLAIN, (0, 1, 2, 3, 4), model=MODEL, seed=1, **changes)
    assert isinstance(net, GatedSupernet)
    return net


def fitted(strategy: IHAS, data: Dataset) -> GatedSupernet:
    net = untrained(strategy)
    strategy.trainer(net, data, options=TRAIN, seed=1).run()
    strategy.finish(net, data, seed=1)
    return net.eval()


@pytest.mark.parametrize("gate", ["gaussian", "concrete"])
def test_a_resumed_fit_ends_with_the_same_weights(gate: str, data: Dataset) -> None:
    strategy = IHAS(gate=gate, clusters=(1, 2))
    whole = untrained(strategy)
    strategy.trainer(whole, data, options=TRAIN, seed=1).run()
    kept: list[TrainState] = []
    first = strategy.trainer(untrained(strategy), data, options=TRAIN, seed=1)

    def keep(epoch: Any, state: Any) -> None:
        if epoch.number == 1:
            now = state()
            kept.append(TrainState({n: t.clone() for n, t in now.tensors.items()}, now.meta))

    first.run(on_epoch=keep)
    resumed = untrained(strategy)
    second = strategy.trainer(resumed, data, options=TRAIN, seed=1)
    second.load(kept[0])
    second.run()
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())


def test_the_loss_has_the_regulariser_and_what_is_told_has_not(data: Dataset) -> None:
    strategy, strong = IHAS(sparse=0.0, polar=0.01), IHAS(sparse=0.0, polar=5.0)
    spread = []
    for each in (strategy, strong):
        net = untrained(each)
        history = each.trainer(net, data, options=TRAIN, seed=1).run()
        assert all(epoch.loss > 0 for epoch in history)
        net.train()(ids_of(data.train))
        spread.append(-regulariser(net.gates.open, sparse=0.0, polar=1.0).item())
    assert spread[1] > spread[0] + 0.1


def test_regularisers_count_once_the_warm_up_is_over(data: Dataset) -> None:
    net = untrained(IHAS())
    trainer = IHAS(warmup=0.4, sparse=0.1, polar=0.3).trainer(net, data, options=TRAIN)
    net.train()(ids_of(data.train))
    assert trainer.hook is not None
    assert trainer.penalty is not None
    told = []
    for step in range(10):
        trainer.hook.before(step, 10)
        told.append(float(trainer.penalty().detach()))
    assert told[:4] == [0.0] * 4
    expected = float(regulariser(net.gates.open, sparse=0.1, polar=0.3).detach())
    assert told[4:] == [pytest.approx(expected)] * 6


def test_gated_logits_are_the_backbones_of_gated_embeddings(data: Dataset) -> None:
    net, ids = untrained(IHAS()).eval(), ids_of(data.valid)
    values = net.values(ids)
    expected = net.backbone([values * net.gates(values)], net.embedding.first_order(ids))
    torch.testing.assert_close(net(ids), expected)


@pytest.mark.parametrize("control", ["none", "one", "random", "unmasked"])
def test_clusters_shares_and_router_agree(control: str, data: Dataset) -> None:
    net = fitted(IHAS(clusters=(1, 2, 3), control=control), data)
    assert net.clusters == ((1,) if control == "one" else (1, 2, 3))
    ids = ids_of(data.train)
    gates = net.gates(net.values(ids))
    open_, masked = (gates > 0.5).double(), (net.values(ids) * gates).double()
    for count, position in net.clusterings().items():
        clusters = net.router(position)(ids)
        assert sorted(clusters.unique().tolist()) == list(range(count))
        for c in range(count):
            rows = clusters == c
            torch.testing.assert_close(net.shares(position)[c].double(), open_[rows].mean(0))
            spread = net.get_buffer(f"spreads{position}")[c].double()
            torch.testing.assert_close(spread, masked[rows].std(0, correction=0), atol=1e-6, rtol=1e-4)
            assert control == "random" or (clusters == c).double().mean() >= 0.05


def test_the_path_and_its_scores(data: Dataset) -> None:
    strategy = IHAS(clusters=(1, 2), thresholds=5)
    net = fitted(strategy, data)
    path = strategy.path(net)
    sizes = path.reshape(len(path), 2, 3)  # the candidates are 0, 1, 2, 3, 4
    used = (sizes > 0).any(2).sum(1)
    assert set(used) <= {0, 1, 2}
    assert max((used == n).sum() for n in (1, 2)) <= 5
    for point in sizes:
        count = max(1, int((point > 0).any(1).sum()))
        ranks = net.importance(net.position(count)).numpy()
        assert any(np.array_equal(point[:count], (ranks >= level).sum(2)) for level in range(ranks.max() + 2))
    scorer = strategy.scorer(net, data)
    scores = scorer(path)
    # By hand: the point's most important columns, of each row's cluster.
    ids = ids_of(data.valid)
    values, linear = net.values(ids), net.embedding.first_order(ids)
    for point, score in zip(sizes, scores, strict=True):
        count = max(1, int((point > 0).any(1).sum()))
        position = net.clusterings()[count]
        clusters = net.router(position)(ids)
        mask = torch.zeros(count, 3, 4)
        for c in range(count):
            for f in range(3):
                order = np.argsort(-net.importance(position)[c, f].numpy(), kind="stable")
                mask[c, f, order[: point[c, f]]] = 1
        logits = net.backbone([values * mask[clusters]], linear).detach().numpy()
        assert score == pytest.approx(auc(logits, data.valid.labels))


def test_columns_rank_by_share_and_then_by_spread() -> None:
    net = untrained(IHAS(clusters=(1,)))
    net.found.fill_(1)
    net.shares(0).copy_(torch.tensor([[[1.0, 1, 0.5, 0], [1, 1, 1, 1], [0, 0, 0, 0]]]))
    net.get_buffer("spreads0").copy_(torch.tensor([[[0.3, 0.1, 9, 0], [0.2, 0.3, 0.4, 0.5], [0, 0, 0, 0]]]))
    assert net.importance(0).tolist() == [[[4, 2, 1, 0], [3, 4, 5, 6], [0, 0, 0, 0]]]
    # All gates of the first two fields are decided alike for all rows, and yet there are sizes between all and none.
    totals = [row.sum() for row in IHAS(clusters=(1,)).path(net)]
    assert totals == [0, 1, 2, 4, 5, 6, 7, 12]


def test_a_number_of_clusters_that_lost_some_stands_for_those_it_has() -> None:
    net = untrained(IHAS(clusters=(1, 2, 4, 5)))
    net.found.copy_(torch.tensor([1, 2, 2, 3]))
    assert net.clusterings() == {1: 0, 2: 1, 3: 3}
    assert net.position(3) == 3
    with pytest.raises(InputError, match="sizes use 4 clusters, and the fit found"):
        net.position(4)
    net.found.copy_(torch.tensor([1, 1, 2, 2]))
    assert net.clusterings() == {1: 0, 2: 2}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"sparse": 0.09, "polar": 0.1}, "sparse=0.09"),
        ({"gate": "steel"}, "gate='steel'"),
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"control": "two"}, "control='two'"),
        ({"features": "unmasked"}, "features='unmasked'"),
        ({"clusters": (2, 2)}, "clusters="),
        ({"clusters": ()}, "clusters="),
        ({"thresholds": 0}, "thresholds=0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        IHAS(**options)


@pytest.mark.parametrize(
    ("backbone", "align"), [("deepfm", "linear"), ("dcnv2", "linear"), ("dcnv2", "pad"), ("mlp", "pad")]
)
def test_a_warm_start_is_the_supernet_under_its_mask(backbone: str, align: str, data: Dataset) -> None:
    model = replace(MODEL, backbone=backbone, align=align)
    net = GatedSupernet(
        PLAIN, (0, 1, 2, 3, 4), options=model, router=RouterOptions("gates", 4), clusters=(1, 2), seed=2
    ).eval()
    generator = torch.Generator().manual_seed(0)
    net.found.copy_(torch.tensor([1, 2]))
    net.shares(1).copy_(torch.rand(2, 3, 4, generator=generator))
    if net.embedding.linear is not None:
        net.embedding.linear.weight.normal_(generator=generator)
    chosen = {"user@0": 2, "item@0": 0, "hour@0": 4, "user@1": 1, "item@1": 3, "hour@1": 1}
    ids = ids_of(data.valid)
    routed = IHAS(clusters=(1, 2), warm=True).model(
        PLAIN, chosen, dim=4, options=model, supernet=lambda: net, seed=7
    )  # fmt: skip
    assert isinstance(routed, RoutedModel)
    kept = net.kept(1, torch.tensor([[2, 0, 4], [1, 3, 1]]))
    assert kept.sum(2).tolist() == [[2, 0, 4], [1, 3, 1]]
    with torch.no_grad():
        for one, mask in zip(routed.eval().models, kept, strict=True):
            expected = net.backbone([net.values(ids) * mask], net.embedding.first_order(ids))
            torch.testing.assert_close(one(ids), expected)


def test_a_warm_start_of_one_model(data: Dataset) -> None:
    net = fitted(IHAS(clusters=(1,)), data)
    sizes = {"user@0": 4, "item@0": 4, "hour@0": 4}
    model = IHAS(clusters=(1,), warm=True).model(
        PLAIN, sizes, dim=4, options=MODEL, supernet=lambda: net
    )  # fmt: skip
    ids = ids_of(data.valid)
    expected = net.backbone([net.values(ids)], net.embedding.first_order(ids))
    torch.testing.assert_close(model.eval()(ids), expected)
