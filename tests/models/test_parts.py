"""A batch that goes through the model in parts, where memory does not suffice, gives the step of the whole batch."""

from __future__ import annotations

import pytest
import torch
from helpers import PLAIN, tiny_dataset

from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.rows import RowTable, TouchedParts
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.adass.sampling import SamplingOptions
from optuna_aes.strategies.adass.strategy import AdaSS
from optuna_aes.strategies.base import OneShot
from optuna_aes.strategies.sham.strategy import SHAM


def trained(parts: int, decay: str = "touched", l2: float = 0.0) -> CTRModel:
    dataset = tiny_dataset(PLAIN, rows=(130, 40, 40))
    sizes = dict.fromkeys(dataset.schema.cardinalities, 4)
    model = CTRModel(dataset.schema, sizes, dim=4, options=ModelOptions(hidden=(8,), init_std=0.1), seed=0)
    options = TrainOptions(epochs=2, batch_size=64, lr=1e-2, l2=l2, decay=decay, patience=0)
    trainer = Trainer(model, dataset.train, dataset.valid, options, keep="last")
    trainer.parts = parts
    trainer.run()
    return model


@pytest.mark.parametrize(("decay", "l2"), [("touched", 0.0), ("touched", 1e-3), ("all", 1e-3)])
@pytest.mark.parametrize("parts", [3, 200])  # more parts than rows, too
def test_parts_give_the_weights_of_whole_batches(parts: int, decay: str, l2: float) -> None:
    whole, divided = (trained(n, decay, l2).state_dict() for n in (1, parts))
    assert whole.keys() == divided.keys()
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, rtol=1e-3, atol=1e-5)


def test_rows_that_several_parts_touch_are_added_up() -> None:
    table = RowTable(5, 2, std=1.0)
    touched = TouchedParts({"t": table})
    for rows, widths, factor in (([0, 2], [1, 2], 1.0), ([2, 4], [1, 2], 10.0)):
        leaf = table.gather(torch.tensor(rows), torch.tensor(widths))
        (leaf * factor).sum().backward()
        touched.add()
        assert table.touched is None
    touched.put_back()
    assert table.touched is not None
    assert table.touched.rows.tolist() == [0, 2, 4]
    assert table.touched.leaf.grad is not None
    assert table.touched.leaf.grad.tolist() == [[1, 1], [11, 11], [10, 10]]
    assert table.touched.widths is not None
    assert table.touched.widths.tolist() == [1, 2, 2]


@pytest.mark.parametrize(
    "strategy",
    [AdaSS(sampling=SamplingOptions(table=table, paths=4)) for table in ("probe", "grad", "loss")] + [SHAM()],
)
def test_a_supernet_learns_in_parts(strategy: OneShot) -> None:
    dataset = tiny_dataset(PLAIN, rows=(600, 200, 200))
    supernet = strategy.supernet(dataset.schema, (0, 2, 4), model=ModelOptions(hidden=(8,), init_std=0.1), seed=0)
    options = TrainOptions(epochs=3, batch_size=128, lr=1e-2, patience=0)
    trainer = strategy.trainer(supernet, dataset, options=options, seed=0)
    trainer.parts = 4
    history = trainer.run()
    assert history[-1].loss < history[0].loss
