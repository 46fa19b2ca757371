"""Tables that are updated as a whole end up as those that are updated by the row."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import PLAIN, WITH_BAG, tiny_dataset

from optuna_aes.data.dataset import Schema
from optuna_aes.models import compiled, whole
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer, TrainState


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a compiler makes of it is tested in ``test_compiled``."""
    for module in (compiled, whole):
        monkeypatch.setattr(module, "compiled", lambda function, **_: function)


def trainer(
    *,
    compile: bool,
    batch_size: int = 64,
    decay: str = "touched",
    rows: int = 300,
    backbone: str = "deepfm",
    schema: Schema = PLAIN,
) -> Trainer:
    data = tiny_dataset(schema, (rows, 120, 120))
    options = ModelOptions(backbone=backbone, hidden=(8,))
    sizes = {field.name: (0, 2, 4)[i % 3] for i, field in enumerate(schema.fields)}
    model = CTRModel(schema, sizes, dim=4, options=options, seed=0)
    train = TrainOptions(epochs=3, batch_size=batch_size, lr=0.01, l2=0.01, decay=decay, patience=0, compile=compile)
    return Trainer(model, data.train, data.valid, train, seed=3)


@pytest.mark.parametrize("schema", [PLAIN, WITH_BAG], ids=["plain", "bags"])
@pytest.mark.parametrize("decay", ["touched", "all"])
def test_training_ends_with_the_same_weights_and_moments(decay: str, schema: Schema) -> None:
    rows = trainer(compile=False, decay=decay, schema=schema)
    tables = trainer(compile=True, decay=decay, schema=schema)
    assert tables.whole is not None
    assert rows.whole is None
    wanted, found = rows.run(), tables.run()
    assert [e.loss for e in found] == pytest.approx([e.loss for e in wanted], abs=1e-5)
    for name, value in rows.state().tensors.items():
        torch.testing.assert_close(tables.state().tensors[name], value, atol=1e-5, rtol=1e-4)


def test_rows_that_no_batch_has_stay_as_they_are_to_the_bit() -> None:
    made = trainer(compile=True, rows=20)
    before = copy.deepcopy(made.model.state_dict())
    made.run()
    layout = made.model.embedding.layout
    seen = torch.zeros(layout.total_rows, dtype=torch.bool)
    seen[layout.rows(made.train_feed.ids).flatten().long()] = True
    after, left = made.model.state_dict(), 0
    for name, start in made.whole.starts.items():
        table, old = after[f"{name}.weight"], before[f"{name}.weight"]
        unseen = ~seen[start : start + len(table)]
        left += int(unseen.sum())
        assert torch.equal(table[unseen], old[unseen])
        assert not torch.equal(table, old)
    assert left


def test_a_resumed_training_ends_with_the_same_bits() -> None:
    states: list[TrainState] = []
    through = trainer(compile=True)

    def keep(epoch: object, state: object) -> None:
        states.append(copy.deepcopy(state()))

    through.run(on_epoch=keep)
    again = trainer(compile=True)
    again.load(states[0])
    again.run()
    for name, value in through.state().tensors.items():
        assert torch.equal(again.state().tensors[name], value), name


def test_between_epochs_the_model_is_as_ever() -> None:
    made = trainer(compile=True)
    made.run()
    assert not any(table.weight.requires_grad for table in made.rows.tables.values())
    assert not made.model.embedding.layout.whole


def test_tables_with_more_rows_than_a_batch_has_entries_are_updated_by_the_row() -> None:
    assert trainer(compile=True, batch_size=4).whole is None


def test_with_dropout_tables_are_updated_by_the_row() -> None:
    model = trainer(compile=True).model
    assert whole.WholeTables.suits(model, 64)
    model.backbone.tower.dropout = 0.2
    assert not whole.WholeTables.suits(model, 64)


@pytest.mark.parametrize("backbone", sorted(set(BACKBONES) - {"neumf"}))
@pytest.mark.parametrize("schema", [PLAIN, WITH_BAG], ids=["plain", "bags"])
def test_torch_can_compile_every_backbone_as_a_whole(backbone: str, schema: Schema) -> None:
    made = trainer(compile=True, backbone=backbone, schema=schema)
    made.model.train()
    torch._dynamo.reset()  # it gives up at the ninth version of one function
    ids, labels = made.train_feed.batch(slice(0, 64))
    with made.whole.on():
        loss, _ = torch.compile(made.whole._loss, backend="eager", fullgraph=True, dynamic=False)(ids, labels)
        loss.backward()
        assert all(table.weight.grad is not None for table in made.rows.tables.values())
