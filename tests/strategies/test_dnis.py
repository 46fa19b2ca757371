from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_dataset, tiny_split
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.dataset import Schema
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer, TrainState
from optuna_aes.strategies.dnis.selection import merged_importance, places, selection_step
from optuna_aes.strategies.dnis.sparsity import pruned_to, sparse_cost, sparsified
from optuna_aes.strategies.dnis.strategy import DNIS, merged_tables
from optuna_aes.strategies.dnis.unrolled import unrolled_gradient
from optuna_aes.strategies.pruning.base import gates
from optuna_aes.strategies.pruning.gradients import gate_gradient
from optuna_aes.strategies.registry import strategy_class

CANDIDATES = (0, 1, 2, 3, 4)
MODEL = ModelOptions(hidden=(8,), init_std=0.1, dropout=0.3)


def tiny_trainer(schema: Schema = PLAIN, *, epochs: int = 4, seed: int = 0, **options: Any) -> Trainer:
    method = DNIS(**{"rate": 0.1, **options})
    supernet = method.supernet(schema, CANDIDATES, model=MODEL, seed=seed)
    train = TrainOptions(epochs=epochs, batch_size=32, lr=0.02, l2=1e-3)
    return method.trainer(supernet, tiny_dataset(schema), options=train, seed=seed)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"warmup": 1.0}, "warmup=1.0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"ahead": float("inf")}, "ahead=inf"),
        ({"l1": -1.0}, "l1=-1.0"),
        ({"rank": "beta"}, "rank='beta'"),
        ({"price": -1.0}, "price=-1.0"),
        ({"score_rows": 0}, "score_rows=0"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        DNIS(**given)


def test_it_is_known_by_its_name() -> None:
    assert strategy_class("dnis") is DNIS
    assert DNIS.every_size


def test_a_step_of_the_selection() -> None:
    rng = np.random.default_rng(0)
    alpha, gradient = rng.uniform(size=(3, 4)), rng.normal(size=(3, 4)) * np.array([[1.0], [100.0], [0.0]])
    alpha[0, 0] = 0.0
    full = gradient + 0.02 * np.sign(alpha)
    expected = np.clip(alpha - 0.3 * full / (np.abs(full).mean(1, keepdims=True) + 1e-8), 0, 1)
    moved = selection_step(torch.from_numpy(alpha), torch.from_numpy(gradient), rate=0.3, l1=0.02)
    np.testing.assert_allclose(moved.numpy(), expected)
    assert {0.0, 1.0} <= set(moved.flatten().tolist())


def test_what_columns_are_worth_after_merging() -> None:
    weight = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    alpha = torch.tensor([[1.0, 0.5, 0.0], [0.2, 1.0, 1.0]])
    rows = torch.tensor([5.0, 2.0])
    squares = torch.stack([weight[:5].square().sum(0), weight[5:].square().sum(0)])
    found = merged_importance(squares, alpha, rows, 0.5)
    for block, part in enumerate((weight[:5], weight[5:])):
        merged = (part * alpha[block]).numpy()
        np.testing.assert_allclose(found[block], np.sqrt((merged**2).mean(0)), rtol=1e-5)


def test_places_order_by_the_first_and_then_by_the_second() -> None:
    first = torch.tensor([[1.0, 1.0, 0.5], [0.0, 1.0, 0.5]])
    second = torch.tensor([[2.0, 3.0, 9.0], [9.0, 2.0, 9.0]])
    assert places(first, second).tolist() == [[2.0, 3.0, 1.0], [0.0, 2.0, 1.0]]


def test_unstructured_sparsity_counts_its_indices() -> None:
    table = np.zeros((10, 4), dtype=np.float32)
    table[0, :3] = (1, -2, 3)
    table[4, 1] = 0.5
    cost = sparse_cost(table)
    assert (cost.nonzero, cost.share, cost.dense_bytes) == (4, 0.1, 160)
    # 4 weights of 4 bytes; a byte says which column, and a byte each where a row starts, as there are 5 such places.
    assert cost.csr_bytes == 16 + 4 + 11
    assert cost.bitmap_bytes == 16 + 10 + 11
    assert cost.bytes == 31
    full = sparse_cost(np.ones((1000, 300), dtype=np.float16))
    assert full.bytes == full.dense_bytes == 600_000  # indices cost more than zeros save
    assert full.csr_bytes == 600_000 + 2 * 300_000 + 4 * 1001
    assert sparse_cost(np.zeros((0, 4), dtype=np.float32)).share == 0.0


def test_pruning_to_a_number_of_bytes_leaves_all_that_fits() -> None:
    table = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    for limit in (0.2 * table.nbytes, 0.5 * table.nbytes, 0.9 * table.nbytes):
        left = pruned_to(table, limit)
        cost = sparse_cost(left)
        assert cost.bytes <= limit < sparse_cost(sparsified(table, cost.share + 1.5 / table.size)).bytes
        assert (left[left != 0] == table[left != 0]).all()
        assert np.abs(table[left == 0]).max() < np.abs(left[left != 0]).min()
    assert (pruned_to(table, table.nbytes) == table).all()
    assert not pruned_to(table, 10).any()


def test_the_largest_weights_are_left() -> None:
    table = np.array([[3.0, -4.0, 0.1], [0.2, 1.0, -1.0]])
    assert sparsified(table, 0.5).tolist() == [[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]]  # there is no room for both of size 1
    assert sparsified(table, 0.7).tolist() == [[3.0, -4.0, 0.0], [0.0, 1.0, -1.0]]
    assert not sparsified(table, 0.0).any()
    assert np.array_equal(sparsified(table, 1.0), table)
    with pytest.raises(InputError, match=r"share=1\.1"):
        sparsified(table, 1.1)


def weights_of(supernet: Supernet, tower: bool) -> list[Tensor]:
    embedding = gates(supernet)
    tables = [t.weight for t in (embedding.table, embedding.linear) if t is not None]
    return [*tables, *(supernet.backbone.parameters() if tower else ())]


def unrolled_loss(supernet: Supernet, train: Any, valid: Any, ahead: float, tower: bool) -> float:
    """L_val(w − ξ ∇w L_train(w, α), α), with gradients of whole tables."""
    weights = weights_of(supernet, tower)
    before = [w.detach().clone() for w in weights]
    for w in weights:
        w.requires_grad_()
    loss = F.binary_cross_entropy_with_logits(supernet(train[0]), train[1])
    slopes = torch.autograd.grad(loss, weights, allow_unused=True)
    for w in weights_of(supernet, tower=False):
        w.requires_grad_(False)
    with torch.no_grad():
        for w, slope in zip(weights, slopes, strict=True):
            if slope is not None:
                w -= ahead * slope
        found = float(F.binary_cross_entropy_with_logits(supernet(valid[0]), valid[1]))
        for w, old in zip(weights, before, strict=True):
            w.copy_(old)
    return found


@pytest.mark.parametrize("tower", [False, True])
@pytest.mark.parametrize("ahead", [0.5, 20.0])
@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2"])
def test_the_second_order_is_the_slope_of_the_unrolled_objective(backbone: str, ahead: float, tower: bool) -> None:
    model = ModelOptions(backbone=backbone, hidden=(6,), init_std=0.5)
    supernet = DNIS().supernet(WITH_BAG, (0, 1, 2, 3), model=model).double()
    supernet.eval()
    alpha = gates(supernet).gate
    alpha.copy_(torch.rand(alpha.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    batches = []
    for seed in (0, 1):
        split = tiny_split(WITH_BAG, rows=40, seed=seed)
        batches.append((ids_of(split), torch.from_numpy(split.labels).double()))
    train, valid = batches
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    found = unrolled_gradient(supernet, valid, train, ahead=ahead, tower=tower, distance=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in supernet.state_dict().items())
    expected = torch.zeros_like(alpha)
    for at in np.ndindex(*alpha.shape):
        sides = []
        for by in (1e-5, -1e-5):
            alpha[at] += by
            sides.append(unrolled_loss(supernet, train, valid, ahead, tower))
            alpha.copy_(before["embedding.gate"])
        expected[at] = (sides[0] - sides[1]) / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    first = gate_gradient(supernet, *valid)
    assert (first - expected).norm() > 20 * (found - expected).norm()


def test_in_single_precision_it_is_the_same_to_a_hundredth() -> None:
    train, valid = ((ids_of(s), torch.from_numpy(s.labels).float()) for s in (tiny_split(seed=0), tiny_split(seed=1)))
    single = DNIS().supernet(PLAIN, CANDIDATES, model=ModelOptions(hidden=(6,), init_std=0.1))
    found = unrolled_gradient(single, valid, train, ahead=5.0, tower=False)
    exact = unrolled_gradient(
        single.double(), *((i, y.double()) for i, y in (valid, train)), ahead=5.0, tower=False, distance=1e-4
    )
    assert float((found - exact).norm() / exact.norm()) < 0.01


def test_first_the_warm_start_then_alpha_moves_and_the_tower_rests() -> None:
    trainer = tiny_trainer(warmup=0.5)
    alpha, tower = gates(trainer.model).gate, list(trainer.model.backbone.parameters())
    table = gates(trainer.model).table.weight
    seen: list[tuple[bool, bool, bool]] = []
    held = [alpha.clone(), torch.cat([p.detach().flatten() for p in tower]), table.clone()]

    def on_step(step: int, total: int, speed: float) -> None:
        now = [alpha.clone(), torch.cat([p.detach().flatten() for p in tower]), table.clone()]
        seen.append(tuple(not torch.equal(a, b) for a, b in zip(now, held, strict=True)))
        held[:] = now

    trainer.run(on_step=on_step)
    half = len(seen) // 2
    assert set(seen[:half]) == {(False, True, True)}
    assert set(seen[half:]) == {(True, False, True)}
    assert float(alpha.min()) >= 0
    assert float(alpha.max()) <= 1


def test_the_tower_can_go_on() -> None:
    trainer = tiny_trainer(warmup=0.0, epochs=1, freeze_tower=False)
    before = [p.detach().clone() for p in trainer.model.backbone.parameters()]
    trainer.run()
    assert not any(torch.equal(a, b) for a, b in zip(before, trainer.model.backbone.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"second_order": True}, {"freeze_tower": False, "second_order": True}])
def test_a_resumed_fit_equals_one_that_was_not_interrupted(options: dict[str, Any]) -> None:
    whole = tiny_trainer(**options)
    kept: list[TrainState] = []

    def keep(epoch: Any, state: Any) -> None:
        if epoch.number == 2:
            now = state()
            kept.append(TrainState(load(save(now.tensors)), json.loads(json.dumps(now.meta))))

    whole.run(on_epoch=keep)
    resumed = tiny_trainer(**options)
    resumed.load(kept[0])
    resumed.run()
    theirs = whole.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in resumed.model.state_dict().items())
    assert [e.auc for e in whole.history] == [e.auc for e in resumed.history]
    assert not torch.equal(theirs["embedding.gate"], torch.ones_like(theirs["embedding.gate"]))


def test_scores_are_those_of_the_merged_tables() -> None:
    trainer = tiny_trainer()
    trainer.run()
    method, data, supernet = DNIS(), tiny_dataset(PLAIN), trainer.model
    method.finish(supernet, data)
    path = method.path(supernet)
    assert path[0].tolist() == [0, 0, 0]
    assert path[-1].tolist() == [4, 4, 4]
    assert (np.diff(path, axis=0) >= 0).all()
    middle = path[len(path) // 2]
    kept = gates(supernet).kept(torch.from_numpy(middle))
    ids = ids_of(data.valid)
    scored = supernet.logits(middle[None], ids)[0]
    with torch.no_grad():
        gates(supernet).table.weight.copy_(torch.cat(merged_tables(supernet)))
        gates(supernet).gate.copy_(kept.float())
        supernet.eval()
        torch.testing.assert_close(scored, supernet(ids))


@pytest.mark.parametrize("rank", ["alpha", "merged"])
def test_fields_that_are_noise_lose_their_columns_first(rank: str) -> None:
    fields = (
        PlantedField("user", 300, 2),
        PlantedField("item", 200, 2),
        PlantedField("noise", 300, 0, main=0.0),
        PlantedField("junk", 200, 0, main=0.0),
    )
    data = planted(fields, rows=(30_000, 6_000, 100))
    method = DNIS(rank=rank)
    supernet = method.supernet(data.schema, tuple(range(9)), model=ModelOptions(hidden=(16,), init_std=0.1))
    options = TrainOptions(epochs=6, batch_size=512, lr=0.02, l2=1e-3, schedule="cosine")
    method.trainer(supernet, data, options=options).run()
    method.finish(supernet, data)
    path = method.path(supernet)
    rows = np.array([f.cardinality for f in data.schema.fields])
    at = int(np.argmin(np.abs(path @ rows / (8 * rows.sum()) - 0.3)))
    user, item, noise, junk = path[at].tolist()
    assert min(user, item) >= 2
    assert max(noise, junk) < min(user, item)


def test_a_search_from_fit_to_retraining(tmp_path: Path) -> None:
    from optuna_aes import Search, Task

    data = tiny_dataset(PLAIN)
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
        task, name="dnis", storage=storage, strategy=DNIS(), budget=0.6, trials=20, retrain=2, reference=False
    )
    result = search.run()
    assert len(result.points) == 2
    assert all(p.params <= 0.6 * 4 * sum(data.schema.cardinalities.values()) for p in result.points)
    again = Search.load("dnis", storage, dataset=data, device="cpu")
    assert again.run().points == result.points


@pytest.mark.parametrize("rank", ["alpha", "merged"])
@pytest.mark.parametrize("blocks", ["frequency", "shares", "bands"])
def test_importance_is_by_block(blocks: str, rank: str) -> None:
    method, data = DNIS(blocks=blocks, parts=3, rank=rank), tiny_dataset(WITH_BAG)
    divided = method.partition(data)
    assert divided is not None
    supernet = method.supernet(WITH_BAG, CANDIDATES, model=MODEL, partition=divided)
    embedding = gates(supernet)
    embedding.gate.copy_(torch.rand(embedding.gate.shape))
    found = method.importance(supernet, data)
    assert found.shape == (len(divided.names), 4)
    merged = torch.cat(merged_tables(supernet)).square()
    starts = embedding.layout.field_start.tolist()
    expected = torch.zeros_like(found)
    for field, start, stop, block in divided.pieces:
        expected[block] += merged[starts[field] + start : starts[field] + stop].sum(0)
    expected = (expected / torch.tensor(list(divided.rows.values())).unsqueeze(1)).sqrt()
    if rank == "merged":
        torch.testing.assert_close(found, expected)
    else:
        assert torch.equal(found.flatten().argsort(), embedding.gate.flatten().argsort())


@pytest.mark.parametrize("blocks", ["frequency", "shares", "bands"])
def test_a_search_over_blocks_from_fit_to_the_exported_model(tmp_path: Path, blocks: str) -> None:
    from optuna_aes import Search, Task, load_model

    data = tiny_dataset(PLAIN)
    train = TrainOptions(epochs=2, batch_size=64, lr=0.02)
    model = ModelOptions(hidden=(8,), init_std=0.1)
    task = Task(data, model=model, train=train, candidates=CANDIDATES, device="cpu", threads=1)
    storage = f"sqlite:///{tmp_path / 'aes.db'}"
    given: dict[str, Any] = {"name": "dnis", "storage": storage, "budget": 0.6, "trials": 20, "retrain": 2}
    search = Search.create(task, strategy=DNIS(blocks=blocks, parts=3), **given)
    result = search.run()
    divided = search.context.partition
    assert divided is not None
    names = {f"size:{name}" for name in divided.names}
    assert all(set(t.params) == names for t in search.context.studies.search.trials)
    found = [p for p in result.points if not p.uniform]
    assert 1 <= len(found) <= 2
    for point in found:
        assert point.params == sum(divided.rows[name] * size for name, size in point.sizes.items())
        assert point.feasible
    again = Search.load("dnis", storage, dataset=data, device="cpu")
    assert again.run().points == result.points
    assert again.context.partition == divided
    exported = load_model(again.export(tmp_path / "out"))
    tables = sum(t.weight.numel() for t in exported.embedding.tables.values())
    assert result.best is not None
    assert tables == result.best.params
    assert exported(ids_of(data.test)).shape == (120,)
    with pytest.raises(InputError, match="other settings"):
        Search.create(task, strategy=DNIS(blocks=blocks, parts=4), **given)
    linear = Task(data, model=ModelOptions(align="linear"), train=train, candidates=CANDIDATES, device="cpu")
    with pytest.raises(InputError, match="align='linear'"):
        Search.create(linear, strategy=DNIS(blocks=blocks), **{**given, "name": "other"})
