from __future__ import annotations

import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_split

from optuna_aes.errors import InputError
from optuna_aes.models.backbones.fm import fm_interaction
from optuna_aes.models.model import CTRModel, ModelOptions, dense_parameters, row_tables, seeded

SIZES = {"user": 4, "tags": 2, "item": 0, "shop": 1}


@pytest.mark.parametrize("align", ["pad", "linear"])
@pytest.mark.parametrize("backbone", ["mlp", "deepfm"])
def test_a_model_is_its_embedding_under_its_backbone(backbone: str, align: str) -> None:
    options = ModelOptions(backbone=backbone, hidden=(8,), align=align, init_std=0.5)
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=options)
    ids = ids_of(tiny_split(WITH_BAG, rows=20))
    if backbone == "deepfm":
        model.embedding.linear.weight.normal_()
    groups, linear = model.embedding(ids)
    expected = model.backbone.tower(torch.cat([g.flatten(1) for g in groups], dim=1))
    if backbone == "deepfm":
        expected = expected + fm_interaction(groups) + linear
    torch.testing.assert_close(model(ids), expected)
    assert (linear is None) == (backbone == "mlp")


def test_every_parameter_has_one_optimiser() -> None:
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=ModelOptions(align="linear"))
    by_row = {f"{name}.weight" for name in row_tables(model)}
    dense = set(dense_parameters(model))
    assert by_row == {f"embedding.{name}.weight" for name in ("tables.1", "tables.2", "tables.4", "linear")}
    assert by_row | dense == dict(model.named_parameters()).keys()
    assert not by_row & dense


def test_the_seed_makes_the_weights_and_the_callers_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models = [
        CTRModel(PLAIN, {"user": 2, "item": 4, "hour": 1}, dim=4, options=ModelOptions(), seed=s) for s in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (m.state_dict() for m in models)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["embedding.tables.4.weight"], other["embedding.tables.4.weight"])


def draw_and_fail() -> None:
    with seeded(3):
        torch.rand(2)
        raise KeyError


def test_seeded_restores_the_generator_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "dcn"}, "backbone='dcn'"),
        ({"align": "stretch"}, "align='stretch'"),
        ({"hidden": ()}, "hidden="),
        ({"hidden": (8, 0)}, "hidden="),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"cross_layers": 0}, "cross_layers=0"),
        ({"init_std": 0.0}, "init_std=0.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelOptions(**options)
