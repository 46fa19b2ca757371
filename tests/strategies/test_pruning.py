from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, tiny_dataset
from torch.nn import functional as F

from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.feed import Feed
from optuna_aes.models.masked import MaskedEmbedding
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.strategies.pruning.base import Pruning, gates
from optuna_aes.strategies.pruning.magnitude import Magnitude
from optuna_aes.strategies.pruning.saliency import Saliency

MODEL = ModelOptions(hidden=(8,), init_std=0.3)
SIZES = range(5)


def masked(schema: Schema = PLAIN, backbone: str = "deepfm") -> Supernet:
    from dataclasses import replace

    return Supernet(schema, SIZES, options=replace(MODEL, backbone=backbone), sharing="masked", seed=0)


def field_tables(supernet: Supernet) -> list[torch.Tensor]:
    embedding = supernet.embedding
    assert isinstance(embedding, MaskedEmbedding)
    rows = [f.cardinality for f in PLAIN.fields]
    return list(torch.split(embedding.table.weight, rows))


def test_magnitude_is_the_root_mean_square_and_without_a_price_the_norm() -> None:
    supernet, data = masked(), tiny_dataset()
    tables = [t.numpy() for t in field_tables(supernet)]
    rms = np.stack([np.sqrt((t**2).mean(0)) for t in tables])
    norm = np.stack([np.linalg.norm(t, axis=0) for t in tables])
    np.testing.assert_allclose(Magnitude().importance(supernet, data), rms, rtol=1e-5)
    np.testing.assert_allclose(Magnitude(price=0).importance(supernet, data), norm, rtol=1e-5)


def test_saliency_is_the_change_of_the_loss_with_a_gate() -> None:
    supernet, data = masked(), tiny_dataset()
    found = Saliency(price=0, batches=1, batch_size=10_000).importance(supernet, data)
    ids, labels = Feed(data.train, torch.device("cpu")).batch(slice(None))
    supernet.eval().double()

    def loss() -> float:
        with torch.no_grad():
            return float(F.binary_cross_entropy_with_logits(supernet(ids), labels.double()))

    gate = gates(supernet).gate
    for field, column in [(0, 0), (1, 3), (2, 2)]:
        ends = []
        for value in (1 + 1e-4, 1 - 1e-4):
            gate[field, column] = value
            ends.append(loss())
        gate[field, column] = 1.0
        slope = abs(ends[0] - ends[1]) / 2e-4
        assert float(found[field, column]) == pytest.approx(slope, rel=1e-3)


def test_saliency_leaves_the_supernet_as_it_was() -> None:
    supernet = masked()
    before = {n: t.clone() for n, t in supernet.state_dict().items()}
    Saliency(batches=2, batch_size=50).importance(supernet, tiny_dataset())
    assert supernet.training
    assert not gates(supernet).gate.requires_grad
    assert all(torch.equal(before[n], t) for n, t in supernet.state_dict().items())


@pytest.mark.parametrize("backbone", ["deepfm", "mlp", "autoint"])
@pytest.mark.parametrize("schema", [PLAIN, WITH_BAG], ids=["plain", "bags"])
def test_a_size_keeps_the_most_important_columns_where_they_stand(schema: Schema, backbone: str) -> None:
    supernet, data = masked(schema, backbone), tiny_dataset(schema)
    embedding = gates(supernet)
    embedding.importance.copy_(torch.rand(embedding.importance.shape, generator=torch.Generator().manual_seed(0)))
    path = np.array([[3, 0, 1, 4][: len(schema.fields)]])
    ids = torch.from_numpy(data.valid.ids)
    with torch.no_grad():
        found = supernet.logits(path, ids)
        for field, size in enumerate(path[0]):
            kept = embedding.importance[field].topk(size).indices
            embedding.gate[field] = torch.zeros(4).index_fill(0, kept, 1.0)
        expected = supernet.eval()(ids)
    torch.testing.assert_close(found[0], expected, rtol=1e-4, atol=1e-5)


def test_all_columns_give_the_full_size_model() -> None:
    supernet, data = masked(), tiny_dataset()
    model = CTRModel(PLAIN, dict.fromkeys([f.name for f in PLAIN.fields], 4), dim=4, options=MODEL, seed=0)
    model.embedding.tables["4"].weight.data = gates(supernet).table.weight.clone()
    model.backbone.load_state_dict(supernet.backbone.state_dict())
    ids = torch.from_numpy(data.valid.ids)
    with torch.no_grad():
        torch.testing.assert_close(supernet.logits(np.array([[4, 4, 4]]), ids)[0], model(ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", [Magnitude(), Saliency(batches=2)])
def test_a_fit_gives_a_nested_path_and_scores_along_it(strategy: Pruning) -> None:
    data = tiny_dataset(rows=(2000, 500, 100))
    supernet = strategy.supernet(PLAIN, SIZES, model=MODEL)
    trainer = strategy.trainer(supernet, data, options=TrainOptions(epochs=3, batch_size=256, lr=2e-2))
    trainer.run()
    strategy.finish(supernet, data)
    path = strategy.path(supernet)
    assert path[0].tolist() == [0, 0, 0]
    assert path[-1].tolist() == [4, 4, 4]
    assert (np.diff(path, axis=0) >= 0).all()
    scores = strategy.scorer(supernet, data)(path)
    assert scores[-1] == pytest.approx(trainer.best_auc, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Magnitude(price=-1), "price=-1"),
        (lambda: Saliency(price=float("nan")), "price=nan"),
        (lambda: Saliency(batches=0), "batches=0"),
        (lambda: Magnitude(levels=()), "levels"),
        (lambda: Magnitude(score_rows=0), "score_rows=0"),
    ],
)
def test_options_out_of_range(make: type, text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()
