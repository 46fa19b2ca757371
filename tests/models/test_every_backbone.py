"""What every backbone must do: mixed sizes, dropped fields, export, and learning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import WITH_BAG, fields_for, ids_of, tiny_dataset, tiny_split

from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import InputError
from optuna_aes.export import load_model, save_model
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.search.task import Task

NAMES = [f.name for f in WITH_BAG.fields]
SIZES = {"mixed": (4, 2, 1, 3), "some dropped": (0, 2, 4, 0), "one left": (0, 3, 0, 0), "all dropped": (0, 0, 0, 0)}


@pytest.mark.parametrize("align", ["pad", "linear"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_sizes_of_every_kind_make_one_logit_a_row(backbone: str, sizes: tuple[int, ...], align: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = ModelOptions(backbone=backbone, hidden=(8, 4), align=align, batch_norm=True, dropout=0.2)
        schema = fields_for(backbone, WITH_BAG)
        model = CTRModel(schema, dict(zip(NAMES, sizes, strict=True)), dim=4, options=options)
        logits = model(ids_of(tiny_split(schema, rows=20)))
        logits.sum().backward()
    assert logits.shape == (20,)
    assert logits.isfinite().all()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_export_is_the_same_model(backbone: str, sizes: tuple[int, ...], tmp_path: Path) -> None:
    options = ModelOptions(backbone=backbone, hidden=(8,), init_std=0.5)
    chosen = dict(zip(NAMES, sizes, strict=True))
    data = tiny_dataset(fields_for(backbone, WITH_BAG))
    model = CTRModel(data.schema, chosen, dim=4, options=options, seed=3).eval()
    out = save_model(tmp_path / "model", model.state_dict(), data, sizes=chosen, dim=4, options=options)
    ids = ids_of(data.test)
    with torch.no_grad():
        torch.testing.assert_close(load_model(out)(ids), model(ids), rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_learns_planted_interactions(backbone: str) -> None:
    fields = (PlantedField("user", 40, 2), PlantedField("item", 30, 2), PlantedField("noise", 20, 0, main=0.0))
    clicks = planted(fields[:2] if backbone == "neumf" else fields, rows=(4000, 1000, 1000), seed=1)
    sizes = {"user": 4, "item": 2, "noise": 0}
    options = ModelOptions(backbone=backbone, hidden=(16,), init_std=0.1)
    model = CTRModel(clicks.schema, sizes, dim=4, options=options)
    Trainer(model, clicks.train, clicks.valid, TrainOptions(epochs=8, batch_size=128, lr=0.01)).run()
    assert auc(predict(model, clicks.test), clicks.test.labels) > 0.65  # of .79 at best


@pytest.mark.parametrize(
    "make",
    [
        lambda options: CTRModel(WITH_BAG, dict.fromkeys(NAMES, 2), dim=2, options=options),
        lambda options: Supernet(WITH_BAG, (0, 2), options=options),
        lambda options: Task(tiny_dataset(WITH_BAG), options),
    ],
    ids=["model", "supernet", "task"],
)
def test_neumf_takes_two_fields(make: Callable[[ModelOptions], object]) -> None:
    with pytest.raises(InputError, match="backbone='neumf' takes two fields, a user and an item, and the data has 4"):
        make(ModelOptions(backbone="neumf"))
