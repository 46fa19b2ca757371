from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import WITH_BAG, ids_of, tiny_dataset, tiny_split
from torch import Tensor

from optuna_aes.data.blocks import Partition
from optuna_aes.errors import InputError
from optuna_aes.export import load_model, save_model
from optuna_aes.models.blocks import BlockEmbedding
from optuna_aes.models.evaluation import predict
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.row_optimizers import RowAdam
from optuna_aes.models.rows import RowTable
from optuna_aes.models.sharing import PrefixEmbedding
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer

# user 30 in three parts, tags 12 and item 50 share two blocks, shop 7 is one.
BLOCKS = Partition(
    ("user#1", "user#2", "user#3", "head", "tail", "shop"),
    (
        (0, 0, 5, 0),
        (0, 5, 11, 1),
        (0, 11, 30, 2),
        (1, 0, 4, 3),
        (1, 4, 12, 4),
        (2, 0, 10, 3),
        (2, 10, 50, 4),
        (3, 0, 7, 5),
    ),
)
FIELDS = Partition(("user", "tags", "item", "shop"), ((0, 0, 30, 0), (1, 0, 12, 1), (2, 0, 50, 2), (3, 0, 7, 3)))
SIZES = {"user#1": 4, "user#2": 2, "user#3": 0, "head": 3, "tail": 2, "shop": 0}
OPTIONS = ModelOptions(hidden=(8,), init_std=0.3)


def whole_table(embedding: BlockEmbedding, width: int) -> Tensor:
    """The table of all fields in the schema's order, narrow blocks padded with zeros."""
    found = []
    for p, (field, start, stop, _) in enumerate(embedding.index.pieces):
        first = int(embedding.layout.field_start[field]) + start + int(embedding.shift[p])
        part = torch.zeros(stop - start, width)
        for d, (low, high) in embedding.spans.items():
            if low <= first < high:
                table = embedding.tables[str(d)]
                assert isinstance(table, RowTable)
                part[:, :d] = table.weight[first - low : first - low + stop - start]
        found.append(part)
    return torch.cat(found)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("rows", [3, 60])
def test_every_value_has_its_blocks_vector(rows: int, gradients: bool) -> None:
    embedding = BlockEmbedding(WITH_BAG, BLOCKS, SIZES, with_linear=True, std=1.0)
    ids = ids_of(tiny_split(WITH_BAG, rows=rows))
    table = whole_table(embedding, 4)
    expected = embedding.layout.pool(table[embedding.layout.rows(ids)], ids)
    with torch.set_grad_enabled(gradients):
        groups, linear = embedding(ids)
    assert embedding.widths == [(2, 3), (1, 4)]
    torch.testing.assert_close(groups[0], expected[:, [1, 2], :3])
    torch.testing.assert_close(groups[1], expected[:, [0]])
    assert linear is not None
    assert sum(p.weight.numel() for p in embedding.tables.values()) == 5 * 4 + 6 * 2 + 14 * 3 + 48 * 2
    # Values that training does not show start at zero, as in tables of whole fields.
    assert not table[embedding.layout.oov_rows].any()


@pytest.mark.parametrize("decay", ["touched", "all"])
def test_a_block_per_field_is_trained_as_the_plain_model_is(decay: str) -> None:
    sizes = {"user": 4, "tags": 2, "item": 1, "shop": 0}
    data = tiny_dataset(WITH_BAG)
    models = [CTRModel(WITH_BAG, sizes, dim=4, options=OPTIONS, partition=p) for p in (None, FIELDS)]
    models[1].load_state_dict(models[0].state_dict())
    options = TrainOptions(epochs=2, batch_size=64, lr=0.02, l2=1e-3, decay=decay)
    for model in models:
        Trainer(model, data.train, data.valid, options).run()
    np.testing.assert_allclose(*(predict(model, data.test) for model in models), atol=1e-5)


def test_all_blocks_may_be_dropped() -> None:
    model = CTRModel(WITH_BAG, dict.fromkeys(SIZES, 0), dim=4, options=OPTIONS, partition=BLOCKS)
    assert model(ids_of(tiny_split(WITH_BAG, rows=9))).shape == (9,)


def test_what_a_model_with_blocks_cannot_have_is_refused() -> None:
    with pytest.raises(InputError, match="align='linear'"):
        CTRModel(WITH_BAG, SIZES, dim=4, options=ModelOptions(align="linear"), partition=BLOCKS)
    with pytest.raises(InputError, match="block 'shop'"):
        CTRModel(WITH_BAG, {**SIZES, "shop": -1}, dim=4, options=OPTIONS, partition=BLOCKS)
    with pytest.raises(InputError, match="sharing='separate'"):
        Supernet(WITH_BAG, (0, 2), options=OPTIONS, sharing="separate", partition=BLOCKS)


def shared(partition: Partition | None, backbone: str = "deepfm", sharing: str = "masked") -> Supernet:
    options = ModelOptions(backbone=backbone, hidden=(8,), init_std=0.3)
    supernet = Supernet(WITH_BAG, (0, 1, 2, 3, 4), options=options, sharing=sharing, partition=partition)
    return supernet.eval()


@pytest.mark.parametrize("sharing", ["masked", "prefix"])
def test_a_supernet_with_a_block_per_field_is_the_plain_one(sharing: str) -> None:
    plain, divided = (shared(partition, sharing=sharing) for partition in (None, FIELDS))
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    if sharing == "masked":
        gate = torch.rand(4, 4)
        for supernet in (plain, divided):
            supernet.embedding.gate.copy_(gate)
    path = np.array([[4, 1, 0, 2], [0, 3, 3, 3]])
    torch.testing.assert_close(divided(ids), plain(ids))
    torch.testing.assert_close(divided.logits(path, ids), plain.logits(path, ids))


@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2", "autoint"])
def test_scores_of_a_choice_are_those_of_closed_gates(backbone: str) -> None:
    supernet = shared(BLOCKS, backbone)
    embedding = supernet.embedding
    assert isinstance(embedding, MaskedEmbedding)
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    path = np.array([[4, 2, 0, 1, 3, 0]])
    scored = supernet.logits(path, ids)[0]
    embedding.gate.copy_(embedding.kept(torch.from_numpy(path[0])))
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            torch.testing.assert_close(supernet(ids), scored, rtol=1e-4, atol=1e-5)
    # The rows of a dropped block are zeros, and no others.
    with torch.no_grad():
        (full,), _ = embedding(ids)
    user = ids[:, 0]
    assert torch.equal((full[:, 0] == 0).all(1), (user >= 11) | (user == 0))


def prefix_step(supernet: Supernet, ids: Tensor) -> Tensor:
    """Logits of the chosen paths, with a gradient."""
    logits: Tensor = supernet(ids)
    logits.square().sum().backward()
    return logits.detach()


@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2", "autoint"])
def test_a_subnets_values_are_the_first_columns_of_its_blocks(backbone: str) -> None:
    supernet = shared(BLOCKS, backbone, "prefix")
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    path = np.array([[4, 2, 0, 1, 3, 0], [0, 4, 1, 0, 0, 2]])
    scored = supernet.logits(path, ids)
    for at in range(2):
        supernet.embedding.set_paths(path[at : at + 1])
        torch.testing.assert_close(prefix_step(supernet, ids), scored[at], rtol=1e-4, atol=1e-5)
    # Both at once: each path on its half of the batch.
    supernet.embedding.set_paths(path)
    halves = torch.cat([scored[0, :20], scored[1, 20:]])
    torch.testing.assert_close(prefix_step(supernet, ids), halves, rtol=1e-4, atol=1e-5)


def test_a_subnet_with_blocks_is_the_right_sized_model() -> None:
    supernet = shared(BLOCKS, sharing="prefix")
    inside = supernet.embedding
    assert isinstance(inside, PrefixEmbedding)
    sizes = {**SIZES, "user#1": 2}  # a field is as wide as its widest block: user 2, tags and item 3
    model = CTRModel(WITH_BAG, sizes, dim=4, options=OPTIONS, partition=BLOCKS).eval()
    outside = model.embedding
    assert isinstance(outside, BlockEmbedding)
    for p, (field, start, stop, block) in enumerate(BLOCKS.pieces):
        if size := sizes[BLOCKS.names[block]]:
            source = int(inside.layout.field_start[field]) + start
            to = source + int(outside.shift[p]) - outside.spans[size][0]
            table = outside.tables[str(size)]
            assert isinstance(table, RowTable)
            table.weight[to : to + stop - start] = inside.table.weight[source : source + stop - start, :size]
    weights = supernet.backbone.state_dict()
    columns = [f * 4 + c for width, fields in outside.groups for f in fields for c in range(width)]
    weights["tower.hidden.0.weight"] = weights["tower.hidden.0.weight"][:, columns]
    model.backbone.load_state_dict(weights)
    ids = ids_of(tiny_split(WITH_BAG, rows=60))
    path = np.array([[sizes[name] for name in BLOCKS.names]])
    torch.testing.assert_close(supernet.logits(path, ids)[0], model(ids).detach(), rtol=1e-4, atol=1e-5)


def test_a_step_changes_only_the_columns_that_its_path_gives_a_block() -> None:
    supernet = shared(BLOCKS, sharing="prefix").train()
    table = supernet.embedding.table
    assert isinstance(table, RowTable)
    before = table.weight.clone()
    optimizer = RowAdam({"table": table}, lr=0.1, l2=0.01)
    supernet.embedding.set_paths(np.array([[4, 2, 0, 1, 3, 0]]), np.array([True, True, True, False, True, True]))
    prefix_step(supernet, ids_of(tiny_split(WITH_BAG, rows=200)))
    optimizer.step()
    changed = table.weight != before
    widths = dict(zip(BLOCKS.names, [4, 2, 0, 0, 3, 0], strict=True))  # "head" was not to be updated
    starts = supernet.embedding.layout.field_start.tolist()
    for field, start, stop, block in BLOCKS.pieces:
        columns = changed[starts[field] + start : starts[field] + stop].any(0)
        assert columns.tolist() == [c < widths[BLOCKS.names[block]] for c in range(4)]


def test_what_a_step_shows_is_summed_by_block() -> None:
    embedding = shared(BLOCKS, sharing="prefix").embedding
    ids = ids_of(tiny_split(WITH_BAG, rows=30))
    embedding.keep_gradient = True
    (full,), _ = embedding(ids)
    full.square().sum().backward()
    assert embedding.output is not None
    assert embedding.output.grad is not None
    seen = embedding.by_block(embedding.output.grad.square().sum(2))
    user = ids[:, 0]
    whole = 4 * full[:, 0].detach().square().sum(1)
    for block, (low, high) in enumerate([(0, 5), (5, 11), (11, 30)]):
        expected = torch.where((user >= low) & (user < high), whole, torch.zeros(()))
        torch.testing.assert_close(seen[:, block], expected)
    assert embedding.block_rows == list(BLOCKS.rows.values())


def test_a_model_with_blocks_is_exported_and_loaded(tmp_path: Path) -> None:
    data = tiny_dataset(WITH_BAG)
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=OPTIONS, partition=BLOCKS)
    save_model(tmp_path / "out", model.state_dict(), data, sizes=SIZES, dim=4, options=OPTIONS, partition=BLOCKS)
    ids = ids_of(data.test)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "out")(ids), model.eval()(ids))
