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
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.rows import RowTable
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.training import Trainer, TrainOptions, predict

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
    with pytest.raises(InputError, match="sharing='prefix'"):
        Supernet(WITH_BAG, (0, 2), options=OPTIONS, partition=BLOCKS)


def masked(partition: Partition | None, backbone: str = "deepfm") -> Supernet:
    options = ModelOptions(backbone=backbone, hidden=(8,), init_std=0.3)
    supernet = Supernet(WITH_BAG, (0, 1, 2, 3, 4), options=options, sharing="masked", partition=partition)
    return supernet.eval()


def test_a_supernet_with_a_block_per_field_is_the_plain_one() -> None:
    plain, divided = masked(None), masked(FIELDS)
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    gate = torch.rand(4, 4)
    for supernet in (plain, divided):
        supernet.embedding.gate.copy_(gate)
    path = np.array([[4, 1, 0, 2], [0, 3, 3, 3]])
    torch.testing.assert_close(divided(ids), plain(ids))
    torch.testing.assert_close(divided.logits(path, ids), plain.logits(path, ids))


@pytest.mark.parametrize("backbone", ["deepfm", "dcnv2", "autoint"])
def test_scores_of_a_choice_are_those_of_closed_gates(backbone: str) -> None:
    supernet = masked(BLOCKS, backbone)
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


def test_a_model_with_blocks_is_exported_and_loaded(tmp_path: Path) -> None:
    data = tiny_dataset(WITH_BAG)
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=OPTIONS, partition=BLOCKS)
    save_model(tmp_path / "out", model.state_dict(), data, sizes=SIZES, dim=4, options=OPTIONS, partition=BLOCKS)
    ids = ids_of(data.test)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "out")(ids), model.eval()(ids))
