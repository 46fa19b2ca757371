"""Every backbone's formula, worked out once more in plain numpy loops, a row and a field at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optuna_aes.models.backbones.attention import HEAD_WIDTH, HEADS, LAYERS
from optuna_aes.models.backbones.base import Backbone
from optuna_aes.models.backbones.cross import CrossLayers, DCNv2
from optuna_aes.models.backbones.registry import BACKBONES

WIDTHS = [(2, 3), (3, 1), (1, 2)]
ROWS, HIDDEN = 5, (4, 3)


def widths_of(name: str) -> list[tuple[int, int]]:
    return [(1, 3), (1, 2)] if name == "neumf" else WIDTHS


def tower(weights: dict[str, np.ndarray], row: np.ndarray) -> float:
    for i in range(len(HIDDEN)):
        weight, bias = weights[f"tower.hidden.{i}.weight"], weights[f"tower.hidden.{i}.bias"]
        row = np.array([max(0.0, float(w @ row) + b) for w, b in zip(weight, bias, strict=True)])
    return float(weights["tower.out.weight"][0] @ row + weights["tower.out.bias"][0])


def cross(weights: dict[str, np.ndarray], x0: np.ndarray, layers: int) -> float:
    x = x0
    for i in range(layers):
        weight, bias = weights[f"cross.layers.{i}.weight"], weights[f"cross.layers.{i}.bias"]
        after = np.zeros_like(x)
        for c in range(len(x)):
            after[c] = x0[c] * (sum(weight[c, d] * x[d] for d in range(len(x))) + bias[c]) + x[c]
        x = after
    return float(weights["cross.out.weight"][0] @ x)


def pairs(fields: list[np.ndarray]) -> float:
    total = 0.0
    for a in range(len(fields)):
        for b in range(a + 1, len(fields)):
            common = min(len(fields[a]), len(fields[b]))
            total += sum(float(fields[a][c] * fields[b][c]) for c in range(common))
    return total


def attention(weights: dict[str, np.ndarray], fields: list[np.ndarray]) -> float:
    xs = [np.concatenate([f, np.zeros(3 - len(f))]) for f in fields]
    for i in range(LAYERS):
        q, k, v, r = (weights[f"layers.{i}.{name}.weight"] for name in ("query", "key", "value", "residual"))
        after = []
        for x in xs:
            heads = []
            for h in range(HEADS):
                part = slice(h * HEAD_WIDTH, (h + 1) * HEAD_WIDTH)
                scores = np.array([(q[part] @ x) @ (k[part] @ y) for y in xs])
                shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                heads.append(sum(share * (v[part] @ y) for share, y in zip(shares, xs, strict=True)))
            after.append(np.maximum(np.concatenate(heads) + r @ x, 0.0))
        xs = after
    return float(weights["out.weight"][0] @ np.concatenate(xs) + weights["out.bias"][0])


def products(weights: dict[str, np.ndarray], fields: list[np.ndarray]) -> float:
    weight = weights["product.weight"][0]
    return sum(float(weight[c] * fields[0][c] * fields[1][c]) for c in range(len(weight)))


def by_hand(name: str, weights: dict[str, np.ndarray], fields: list[np.ndarray], linear: float, layers: int) -> float:
    row = np.concatenate(fields)
    parts = {
        "mlp": lambda: tower(weights, row),
        "fm": lambda: float(weights["bias"]) + linear + pairs(fields),
        "widedeep": lambda: linear + tower(weights, row),
        "deepfm": lambda: linear + pairs(fields) + tower(weights, row),
        "dcnv2": lambda: cross(weights, row, layers) + tower(weights, row),
        "neumf": lambda: products(weights, fields) + tower(weights, row),
        "autoint": lambda: attention(weights, fields),
    }
    return parts[name]()


def made(name: str, **options: int) -> tuple[Backbone, dict[str, np.ndarray]]:
    backbone = BACKBONES[name](widths_of(name), hidden=HIDDEN, **options).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(generator=generator)
    return backbone, {n: t.numpy() for n, t in backbone.state_dict().items()}


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", BACKBONES)
def test_the_formula(name: str, layers: int) -> None:
    backbone, weights = made(name, cross_layers=layers)
    rng = np.random.default_rng(1)
    groups = [rng.normal(size=(ROWS, fields, width)) for fields, width in widths_of(name)]
    linear = rng.normal(size=ROWS)
    rows = [[group[r, f] for group in groups for f in range(group.shape[1])] for r in range(ROWS)]
    expected = [by_hand(name, weights, fields, w, layers) for fields, w in zip(rows, linear, strict=True)]
    with torch.no_grad():
        given = torch.from_numpy(linear) if backbone.first_order else None
        logits = backbone([torch.from_numpy(g) for g in groups], given)
    np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-9)


def test_a_column_of_zeros_stays_zero_through_all_cross_layers_so_it_may_be_left_out() -> None:
    layers = CrossLayers(6, 3).double()
    columns = torch.tensor([4, 0, 3])
    x = torch.randn(9, 3, dtype=torch.float64)
    full = torch.zeros(9, 6, dtype=torch.float64).index_copy(1, columns, x)
    with torch.no_grad():
        for layer in layers.layers:
            layer.bias.normal_()  # what would leak, were x_0 not multiplied with it
        torch.testing.assert_close(layers(x, columns), layers(full))
        assert layers(x[:, :0], columns[:0]).tolist() == [0.0] * 9


def test_without_inputs_there_are_no_cross_layers() -> None:
    model = DCNv2([], hidden=[4], cross_layers=2)
    assert len(model.cross.layers) == 0
    model.tower.out.bias.data.fill_(0.75)
    assert model([torch.zeros(3, 0, 0)], None).tolist() == [0.75] * 3
