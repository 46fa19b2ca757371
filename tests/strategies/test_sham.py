from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_dataset, tiny_split
from safetensors.torch import load, save
from torch.nn import functional as F

from optuna_aes.data.dataset import Schema
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer, TrainState
from optuna_aes.strategies.pruning.base import gates
from optuna_aes.strategies.pruning.gradients import gate_gradient
from optuna_aes.strategies.registry import strategy_class
from optuna_aes.strategies.sham.hook import MaskHook, mark, record_of
from optuna_aes.strategies.sham.masks import lowest_price, mask_step, memory
from optuna_aes.strategies.sham.orthogonal import orthogonality, orthogonality_gradient
from optuna_aes.strategies.sham.strategy import SHAM

CANDIDATES = (0, 1, 2, 3, 4)
MODEL = ModelOptions(hidden=(8,), init_std=0.1, dropout=0.3)
ROWS = np.array([10.0, 30.0, 5.0])
RNG = np.random.default_rng(0)


def step(a: np.ndarray, gradient: np.ndarray, limit: float, **changes: Any) -> tuple[np.ndarray, float]:
    return mask_step(a, gradient, ROWS, limit, **{"rate": 0.1, "bound": 1.0, "surrogate": "one", **changes})


def tiny_trainer(schema: Schema = PLAIN, *, epochs: int = 4, seed: int = 0, **options: Any) -> Trainer:
    method = SHAM(**{"target": 0.1, "marks": 8, "rate": 0.1, **options})
    supernet = method.supernet(schema, CANDIDATES, model=MODEL, seed=seed)
    train = TrainOptions(epochs=epochs, batch_size=32, lr=0.02, l2=1e-3)
    return method.trainer(supernet, tiny_dataset(schema), options=train, seed=seed)


def hook_of(trainer: Trainer) -> MaskHook:
    assert isinstance(trainer.hook, MaskHook)
    return trainer.hook


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"batch": "test"}, "batch='test'"),
        ({"surrogate": "relu"}, "surrogate='relu'"),
        ({"warmup": 0.7, "search": 0.4}, "warmup=0.7 and search=0.4"),
        ({"search": 0.0}, "search=0.0"),
        ({"target": 1.0}, "target=1.0"),
        ({"marks": 0}, "marks=0"),
        ({"start": 2.0}, "start=2.0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"orthogonal": -1.0}, "orthogonal=-1.0"),
        ({"levels": (2.0,)}, "levels"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        SHAM(**given)


def test_it_is_known_by_its_name() -> None:
    assert strategy_class("sham") is SHAM
    assert SHAM.every_size


@pytest.mark.parametrize("surrogate", ["one", "softplus"])
def test_a_step_without_a_limit_has_no_price_and_is_plain_descent(surrogate: str) -> None:
    a, gradient = RNG.normal(size=(3, 4)) * 0.1, RNG.normal(size=(3, 4))
    moved, price = step(a, gradient, 1e9, surrogate=surrogate)
    slope = 1 if surrogate == "one" else 1 / (1 + np.exp(-a))
    assert price == 0
    np.testing.assert_allclose(moved, a - 0.1 * gradient * slope)


@pytest.mark.parametrize("surrogate", ["one", "softplus"])
@pytest.mark.parametrize("limit", [170.0, 90.0, 33.0, 4.0, 0.0])
def test_the_price_is_the_lowest_that_meets_the_limit(surrogate: str, limit: float) -> None:
    a, gradient = RNG.uniform(0.01, 0.2, size=(3, 4)), -RNG.uniform(size=(3, 4))
    moved, price = step(a, gradient, limit, surrogate=surrogate, bound=100.0)
    share = ROWS / ROWS.sum()
    slope = 1 if surrogate == "one" else 1 / (1 + np.exp(-a))

    def at(mu: float) -> np.ndarray:
        return a - 0.1 * slope * (gradient + mu * share[:, None])

    assert price > 0
    np.testing.assert_allclose(moved, at(price), atol=1e-12)
    assert memory(moved, ROWS) <= limit
    assert memory(at(price + 1e-6), ROWS) <= limit < memory(at(price - 1e-6), ROWS)


def test_the_price_is_found_by_trying_every_one() -> None:
    worth = RNG.normal(size=(3, 2))
    share = ROWS / ROWS.sum()
    for limit in (80.0, 45.0, 20.0, 3.0):
        found = lowest_price(worth, np.zeros((3, 2)), share, ROWS, limit)
        tried = sorted({0.0, *(w for w in (worth / share[:, None]).reshape(-1).tolist() if w > 0)})
        held = [float(ROWS @ (worth / share[:, None] > mu).sum(1)) for mu in tried]
        assert found == pytest.approx(next(mu for mu, h in zip(tried, held, strict=True) if h <= limit))


def test_columns_of_a_useless_field_close_first_and_those_of_large_tables_before_small_ones() -> None:
    a = np.full((3, 4), 0.05)
    useful = np.zeros((3, 4))
    useful[0] = -1.0
    for limit in np.linspace(180, 40, 30):
        a, _ = step(a, useful, float(limit))
    assert (a > 0).sum(1).tolist() == [4, 0, 0]
    a, _ = step(np.full((3, 4), 0.05), np.zeros((3, 4)), 100.0)
    assert (a > 0).sum(1).tolist() == [4, 0, 4]


def test_a_closed_column_comes_back_when_its_worth_rises_and_another_makes_room() -> None:
    a, none = np.full((3, 1), 0.05), np.zeros((3, 1))
    for _ in range(20):
        a, _ = step(a, none, 40.0, bound=0.1)
    assert (a[:, 0] > 0).tolist() == [True, False, True]
    missed = np.array([[0.0], [-1.0], [0.0]])
    opened = []
    for _ in range(20):
        a, _ = step(a, missed, 40.0, bound=0.1)
        opened.append((a[:, 0] > 0).tolist())
        assert memory(a, ROWS) <= 40
    assert opened[-1][1]
    assert opened[-1][::2] != [True, True]


def test_variables_stay_within_the_bound() -> None:
    moved, _ = step(np.full((3, 4), 0.3), RNG.normal(size=(3, 4)) * 100, 60.0, bound=0.4)
    assert np.abs(moved).max() == 0.4


def test_orthogonality_and_its_gradient() -> None:
    table = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = table.numpy() / np.linalg.norm(table.numpy(), axis=0)
    expected = np.linalg.norm(unit.T @ unit - np.eye(4), "fro") ** 2 / 16
    assert float(orthogonality(table)) == pytest.approx(expected)
    table[:, 2] = 0.0  # a closed column
    watched = table.clone().requires_grad_()
    (slope,) = torch.autograd.grad(orthogonality(watched), watched)
    torch.testing.assert_close(orthogonality_gradient(table), slope * (table != 0))
    assert float(orthogonality(torch.eye(5))) == 0.0
    assert not orthogonality_gradient(torch.zeros(0, 3)).any()


def test_the_gradient_of_gates_is_that_of_the_outputs_times_the_values_of_closed_columns_too() -> None:
    supernet = SHAM().supernet(WITH_BAG, CANDIDATES, model=MODEL)
    embedding, split = gates(supernet), tiny_split(WITH_BAG, rows=50)
    ids, labels = ids_of(split), torch.from_numpy(split.labels).float()
    embedding.gate.copy_((torch.arange(16).view(4, 4) % 3 != 0).float())
    supernet.train()
    random = torch.random.get_rng_state()
    found = gate_gradient(supernet, ids, labels)
    assert torch.equal(random, torch.random.get_rng_state())
    assert supernet.training
    assert not embedding.gate.requires_grad
    assert embedding.table.touched is None
    values = embedding.layout.pool(embedding.table.lookup(embedding.layout.rows(ids)), ids)
    masked = (values * embedding.gate).requires_grad_()
    linear = embedding.first_order(ids)
    supernet.eval()
    loss = F.binary_cross_entropy_with_logits(supernet.backbone([masked], linear), labels)
    (slope,) = torch.autograd.grad(loss, masked)
    torch.testing.assert_close(found, (slope * values).sum(0))
    assert (found[embedding.gate == 0] != 0).all()


def test_the_same_batchs_gradient_is_taken_from_the_training_step() -> None:
    trainer = tiny_trainer(batch="train", warmup=0.0, search=0.5, orthogonal=0.0)
    supernet, hook = trainer.model, hook_of(trainer)
    supernet.eval()
    split = tiny_split(PLAIN, rows=40)
    ids, labels = ids_of(split), torch.from_numpy(split.labels).float()
    expected = gate_gradient(supernet, ids, labels)
    seen: list[torch.Tensor] = []
    hook._search = seen.append
    hook.before(0, 100)
    losses = F.binary_cross_entropy_with_logits(supernet(ids), labels, reduction="none")
    losses.mean().backward()
    hook.after(0, losses.detach())
    torch.testing.assert_close(seen[0], expected)
    assert gates(supernet).gate.grad is None
    assert not gates(supernet).gate.requires_grad


def test_the_regulariser_is_added_to_the_batchs_rows_of_every_field() -> None:
    gradients = []
    for weight in (0.0, 0.5):
        trainer = tiny_trainer(WITH_BAG, orthogonal=weight)
        supernet = trainer.model
        supernet.eval()
        embedding = gates(supernet)
        embedding.gate[1, 2] = 0.0
        split = tiny_split(WITH_BAG, rows=25)
        losses = F.binary_cross_entropy_with_logits(supernet(ids_of(split)), torch.from_numpy(split.labels).float())
        losses.backward()
        hook_of(trainer).after(0, losses.detach())
        touched = embedding.table.touched
        gradients.append((touched.rows, touched.leaf.detach(), touched.leaf.grad))
    (rows, leaf, plain), (_, _, added) = gradients
    starts = embedding.layout.field_start.tolist()
    expected = torch.zeros_like(plain)
    for field, (low, high) in enumerate(zip(starts, [*starts[1:], embedding.layout.total_rows], strict=True)):
        mine = (rows >= low) & (rows < high)
        table = (leaf[mine] * embedding.gate[field]).requires_grad_()
        (slope,) = torch.autograd.grad(orthogonality(table), table)
        expected[mine] = 0.5 * slope * embedding.gate[field]
    torch.testing.assert_close(added - plain, expected)


def test_levels_are_counted() -> None:
    assert [mark(share, 0.01, 4) for share in (1.0, 0.5, 0.3, 0.1, 0.05, 0.01, 0.001, 0.0)] == [0, 0, 1, 2, 2, 4, 6, 4]


def test_a_fit_follows_the_limit_and_records_the_sizes_that_it_passes() -> None:
    trainer = tiny_trainer(epochs=8, warmup=0.25, search=0.5)
    hook, embedding = hook_of(trainer), gates(trainer.model)
    held: list[tuple[float, float]] = []

    def on_step(step: int, total: int, speed: float) -> None:
        held.append((float(hook.rows @ embedding.gate.sum(1).numpy()) / hook.full, hook.limit / hook.full))

    trainer.run(on_step=on_step)
    first, last = hook.phases(len(held))
    assert (first, last) == (20, 60)
    assert all(share == 1 for share, _ in held[:first])
    assert all(share <= limit + 1e-9 for share, limit in held[first:last])
    assert held[last - 1][1] == pytest.approx(0.1)
    passed = record_of(trainer.model).passed().numpy()
    cost = passed @ hook.rows / hook.full
    assert len(passed) > 3
    assert (np.diff(cost) < 0).all()
    assert cost[-1] <= 0.1
    # Afterwards every step trains one of those sizes, or all columns.
    allowed = {1.0, *np.round(cost, 6)}
    assert {round(share, 6) for share, _ in held[last:]} <= {round(float(a), 6) for a in allowed}


def test_path_and_scores_after_a_fit() -> None:
    trainer = tiny_trainer()
    trainer.run()
    method, data, supernet = SHAM(), tiny_dataset(PLAIN), trainer.model
    method.finish(supernet, data)
    assert (gates(supernet).gate == 1).all()
    path = method.path(supernet)
    assert path[0].tolist() == [4, 4, 4]
    assert path[-1].tolist() == [0, 0, 0]
    passed = {tuple(sizes) for sizes in record_of(supernet).passed().tolist()}
    assert {tuple(point) for point in path[1:-1].tolist()} == passed - {(4, 4, 4), (0, 0, 0)}
    aucs = method.scorer(supernet, data)(path)
    assert len(set(aucs.tolist())) > 2


@pytest.mark.parametrize("batch", ["valid", "train"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_resumed_fit_equals_one_that_was_not_interrupted(batch: str, at: int) -> None:
    whole = tiny_trainer(batch=batch)
    kept: list[TrainState] = []

    def keep(epoch: Any, state: Any) -> None:
        if epoch.number == at:
            now = state()
            kept.append(TrainState(load(save(now.tensors)), json.loads(json.dumps(now.meta))))

    whole.run(on_epoch=keep)
    resumed = tiny_trainer(batch=batch)
    resumed.load(kept[0])
    resumed.run()
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.model.state_dict().items())
    assert [e.auc for e in whole.history] == [e.auc for e in resumed.history]
    assert not torch.equal(kept[0].tensors["model.record.opened"], theirs["record.opened"]) or at == 3


def test_a_falling_auc_neither_stops_the_fit_nor_brings_old_weights_back(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(epochs=6)
    scores = iter(np.linspace(0.9, 0.6, 6))
    monkeypatch.setattr(trainer, "evaluate", lambda: next(scores))
    held: dict[str, torch.Tensor] = {}

    def keep(epoch: Any, state: Any) -> None:
        held.update({name: value.clone() for name, value in trainer.model.state_dict().items()})

    trainer.run(on_epoch=keep)
    assert trainer.epoch == 6
    assert trainer.best_auc == pytest.approx(0.6)
    assert trainer.rows.lr == 0.02
    assert all(torch.equal(value, held[name]) for name, value in trainer.model.state_dict().items())


def test_fields_that_are_noise_lose_their_columns_first() -> None:
    fields = (
        PlantedField("user", 300, 2),
        PlantedField("item", 200, 2),
        PlantedField("noise", 300, 0, main=0.0),
        PlantedField("junk", 200, 0, main=0.0),
    )
    data = planted(fields, rows=(30_000, 6_000, 100))
    method = SHAM()
    supernet = method.supernet(data.schema, tuple(range(9)), model=ModelOptions(hidden=(16,), init_std=0.1))
    options = TrainOptions(epochs=6, batch_size=512, lr=0.02, l2=1e-3, schedule="cosine")
    method.trainer(supernet, data, options=options).run()
    method.finish(supernet, data)
    path = method.path(supernet)
    rows = np.array([f.cardinality for f in data.schema.fields])
    at = int(np.argmin(np.abs(path @ rows / (8 * rows.sum()) - 0.35)))
    user, item, noise, junk = path[at].tolist()
    assert min(user, item) >= 2
    assert max(noise, junk) < min(user, item)
    scores = method.scorer(supernet, data)(path[[at, -1]])
    assert scores[0] > scores[1] + 0.03


def test_a_search_from_fit_to_retraining(tmp_path: Path) -> None:
    from optuna_aes import Dataset, Search, Task

    data: Dataset = tiny_dataset(PLAIN)
    task = Task(
        data,
        model=ModelOptions(hidden=(8,), init_std=0.1),
        train=TrainOptions(epochs=2, batch_size=64, lr=0.02),
        candidates=CANDIDATES,
        device="cpu",
        threads=1,
    )
    storage = f"sqlite:///{tmp_path / 'aes.db'}"
    search = Search.create(
        task, name="sham", storage=storage, strategy=SHAM(marks=6), budget=0.6, trials=20, retrain=2, reference=False
    )
    result = search.run()
    assert len(result.points) == 2
    assert all(p.params <= 0.6 * 4 * sum(data.schema.cardinalities.values()) for p in result.points)
    again = Search.load("sham", storage, dataset=data, device="cpu")
    assert again.run().points == result.points
