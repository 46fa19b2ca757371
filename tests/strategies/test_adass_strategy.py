from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_dataset, tiny_split
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from optuna_aes.data.dataset import Dataset
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.sharing import SeparateEmbedding
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer, TrainState
from optuna_aes.strategies.adass.sampling import SamplingOptions
from optuna_aes.strategies.adass.strategy import AdaSS, SupernetHook

CANDIDATES = (0, 1, 2, 4)
TINY = tiny_dataset(PLAIN)
MODEL = ModelOptions(hidden=(8,), init_std=0.1, dropout=0.3)


def strategy(sharing: str = "prefix", **sampling: Any) -> AdaSS:
    given = {"paths": 1 if sharing == "separate" else 3, "probe_rows": 50, **sampling}
    return AdaSS(sharing=sharing, sampling=SamplingOptions(**given), score_rows=100)


def tiny_trainer(sharing: str = "prefix", *, epochs: int = 3, seed: int = 0, **sampling: Any) -> Trainer:
    method = strategy(sharing, **sampling)
    supernet = method.supernet(TINY.schema, CANDIDATES, model=MODEL, seed=seed)
    options = TrainOptions(epochs=epochs, batch_size=64, lr=0.02, l2=1e-3, patience=0, schedule="cosine")
    return method.trainer(supernet, TINY, options=options, seed=seed)


def hook_of(trainer: Trainer) -> SupernetHook:
    assert isinstance(trainer.hook, SupernetHook)
    return trainer.hook


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_same_weights(one: Trainer, other: Trainer) -> None:
    theirs = weights(other)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(one).items())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"sharing": "both"}, "sharing='both'"),
        ({"sharing": "separate"}, "set sampling.paths=1"),
        ({"score_rows": 0}, "score_rows=0"),
        ({"blocks": "values"}, "blocks='values'"),
        ({"blocks": "frequency", "parts": 1}, "parts=1"),
        (
            {"blocks": "frequency", "sharing": "separate", "sampling": SamplingOptions(paths=1)},
            "blocks='frequency' needs sharing='prefix'",
        ),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        AdaSS(**given)


@pytest.fixture(scope="module")
def data() -> Dataset:
    fields = (
        PlantedField("user", 300, 2),
        PlantedField("item", 80, 2),
        PlantedField("hour", 24, 1),
        PlantedField("noise", 200, 0, main=0.0),
        PlantedField("junk", 30, 0, main=0.0),
    )
    return planted(fields, rows=(30_000, 5_000, 100))


@pytest.mark.parametrize(
    ("sharing", "sampling"),
    [
        ("prefix", {"table": "probe"}),
        ("prefix", {"table": "grad", "paths": 4, "field_share": 0.6}),
        ("prefix", {"table": "loss", "paths": 1}),
        ("prefix", {"table": "uniform", "full_share": 0.5}),
        ("separate", {"table": "probe", "paths": 1}),
        ("separate", {"table": "grad", "paths": 1, "field_share": 0.8}),
        ("separate", {"table": "loss", "paths": 1}),
        ("separate", {"table": "uniform", "paths": 1}),
    ],
)
def test_a_fit_learns_planted_data_at_every_size(data: Dataset, sharing: str, sampling: dict[str, Any]) -> None:
    """Also where tables are separate: without a gain after their batch norm no size reached what size 0 has, .72."""
    method = AdaSS(sharing=sharing, sampling=SamplingOptions(**sampling))
    supernet = method.supernet(data.schema, (0, 1, 2, 4, 8), model=ModelOptions(hidden=(32, 16), init_std=0.1))
    options = TrainOptions(epochs=5, batch_size=512, lr=0.01, l2=1e-3, patience=0, schedule="cosine")
    trainer = method.trainer(supernet, data, options=options)
    history = trainer.run()
    scores = method.scorer(supernet, data)(np.array([[k] * 5 for k in range(5)]))
    assert scores[1:].min() > 0.72
    assert scores[2:].max() > scores[0] + 0.02  # interactions are there to be found, and first order alone is not all
    assert trainer.best_auc == pytest.approx(scores[1:].mean(), abs=1e-6)
    assert history[-1].loss < history[0].loss


def test_the_validation_auc_is_the_mean_over_the_uniform_sizes_above_zero() -> None:
    trainer = tiny_trainer()
    scorer = strategy().scorer(trainer.model, TINY)
    assert trainer.evaluate() == pytest.approx(float(scorer(np.array([[1] * 3, [2] * 3, [3] * 3])).mean()))


@pytest.mark.parametrize("sharing", ["prefix", "separate"])
def test_the_seed_decides(sharing: str) -> None:
    runs = [tiny_trainer(sharing, seed=seed) for seed in (0, 0, 1)]
    for trainer in runs:
        trainer.run()
    assert_same_weights(runs[0], runs[1])
    assert not torch.equal(*(next(iter(weights(r).values())) for r in runs[1:]))


@pytest.mark.parametrize("sharing", ["prefix", "separate"])
@pytest.mark.parametrize("table", ["probe", "grad", "loss"])
def test_watching_does_not_disturb_the_training(sharing: str, table: str) -> None:
    """With lags that weigh nothing, a run that measures them equals one that does not, dropout included."""
    watched, plain = (tiny_trainer(sharing, table=t, delta=0.0) for t in (table, "uniform"))
    for trainer in (watched, plain):
        trainer.run()
        embedding = hook_of(trainer).supernet.embedding
        assert embedding.output is None
        assert not embedding.keep_gradient
    assert hook_of(watched).sampler.seen.any()
    assert_same_weights(watched, plain)


def test_a_probe_leaves_mode_gradients_and_statistics() -> None:
    trainer = tiny_trainer("separate", table="probe", warmup=0.0)
    trainer.model.train()
    before = weights(trainer)
    hook_of(trainer).before(0, 8)
    assert hook_of(trainer).sampler.seen.all()
    assert all(module.training for module in trainer.model.modules())
    assert all(p.grad is None for p in trainer.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_probes_come_after_the_warm_up_and_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = hook_of(tiny_trainer(table="probe", warmup=0.25, probes=8))
    probed: list[int] = []
    monkeypatch.setattr(hook, "_probe_lag", lambda step: probed.append(step) or np.zeros((3, 4)))
    for step in range(80):
        hook.before(step, 80)
    assert probed == [20, 30, 40, 50, 60, 70]


def test_a_training_in_bfloat16_probes_in_it_and_finds_about_the_same_lags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna_aes.models.precision.has_bfloat16", lambda device: True)
    trainer = tiny_trainer(table="probe")
    trainer.run()
    exact, options = hook_of(trainer)._probe_lag(5), replace(trainer.options, amp=True)
    half = hook_of(strategy(table="probe").trainer(trainer.model, TINY, options=options))._probe_lag(5)
    assert not np.array_equal(half, exact)
    np.testing.assert_allclose(half, exact, atol=0.05 * exact.max())


@pytest.mark.parametrize("sharing", ["prefix", "separate"])
def test_a_probed_lag_is_the_mean_loss_over_that_of_the_best_candidate(sharing: str) -> None:
    trainer = tiny_trainer(sharing, table="probe", probe_subnets=2)
    trainer.run()
    hook = hook_of(trainer)
    lag = hook._probe_lag(5)
    assert lag.shape == (3, 4)
    np.testing.assert_allclose(lag, hook._probe_lag(5))
    ids, labels = hook._probe
    assert len(labels) == 50
    expected = np.zeros((3, 4))
    hook.supernet.eval()
    for subnet in np.random.default_rng((0, 5, 3)).integers(4, size=(2, 3)):
        for field in range(3):
            losses = []
            for k in range(4):
                path = subnet.copy()
                path[field] = k
                hook.supernet.embedding.set_paths(path[None])
                with torch.no_grad():
                    losses.append(float(F.binary_cross_entropy_with_logits(hook.supernet(ids), labels)))
            expected[field] += (np.array(losses) - min(losses)) / 2
    np.testing.assert_allclose(lag, expected, atol=1e-6)


def observed(hook: SupernetHook, paths: np.ndarray, rows: int) -> None:
    """One step on a batch whose rows the paths do not share evenly."""
    split = tiny_split(WITH_BAG, rows=rows)
    embedding = hook.supernet.embedding
    hook.paths = paths
    embedding.set_paths(paths)
    embedding.keep_gradient = True
    logits = hook.supernet(ids_of(split))
    losses = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(split.labels).float(), reduction="none")
    losses.mean().backward()
    hook.after(0, losses.detach())


def by_piece(supernet: Supernet, paths: np.ndarray, rows: int) -> list[tuple[float, Tensor, Tensor]]:
    """Of every path alone, on its rows: mean loss, and gradient and values of its embeddings."""
    split = tiny_split(WITH_BAG, rows=rows)
    ids, labels = ids_of(split), torch.from_numpy(split.labels).float()
    piece = torch.tensor([i * len(paths) // rows for i in range(rows)])
    found = []
    for at, path in enumerate(paths):
        supernet.embedding.set_paths(path[None])
        supernet.embedding.keep_gradient = True
        logits = supernet(ids[piece == at])
        losses = F.binary_cross_entropy_with_logits(logits, labels[piece == at], reduction="none")
        (losses.sum() / rows).backward()
        assert supernet.embedding.output is not None
        found.append(
            (float(losses.detach().mean()), supernet.embedding.output.grad, supernet.embedding.output.detach())
        )
    return found


def bag_hook(table: str, **sampling: Any) -> SupernetHook:
    method = strategy(table=table, **sampling)
    dataset = tiny_dataset(WITH_BAG)
    supernet = method.supernet(WITH_BAG, CANDIDATES, model=ModelOptions(hidden=(8,), init_std=0.7))
    trainer = method.trainer(supernet, dataset, options=TrainOptions(epochs=1))
    return hook_of(trainer)


PATHS = np.array([[3, 0, 1, 2], [1, 2, 0, 3], [2, 1, 3, 1]])


@pytest.mark.parametrize("rows", [20, 61])
def test_gradient_norms_are_those_of_each_paths_own_columns(rows: int) -> None:
    hook = bag_hook("grad")
    observed(hook, PATHS, rows)
    expected = np.zeros((4, 4))
    for path, (_, gradient, _) in zip(PATHS, by_piece(hook.supernet, PATHS, rows), strict=True):
        for field, k in enumerate(path):
            size = CANDIDATES[k]
            if size:
                expected[field, k] = gradient[:, field, :size].norm() / size**0.5
                assert not gradient[:, field, size:].any()
    # Fields that two paths give one candidate would be averaged; these paths have none.
    np.testing.assert_allclose(hook.sampler.lag, expected, rtol=1e-4)
    assert hook.sampler.seen.sum() == 12


@pytest.mark.parametrize("rows", [20, 61])
def test_losses_are_those_of_each_paths_own_rows(rows: int) -> None:
    hook = bag_hook("loss")
    observed(hook, PATHS, rows)
    for path, (loss, _, _) in zip(PATHS, by_piece(hook.supernet, PATHS, rows), strict=True):
        np.testing.assert_allclose(hook.sampler.lag[np.arange(4), path], loss, rtol=1e-5)


def test_a_last_batch_of_fewer_rows_than_paths_teaches_of_those_it_has() -> None:
    hook = bag_hook("loss")
    observed(hook, PATHS, 2)
    assert hook.sampler.seen.sum() == 8
    assert np.isfinite(hook.sampler.lag).all()


def test_importance_is_the_mean_size_of_gradient_times_value() -> None:
    hook = bag_hook("uniform", field_share=0.5, decay=0.0)
    observed(hook, PATHS, 60)
    pieces = by_piece(hook.supernet, PATHS, 60)
    saliency = torch.cat([(gradient * value).sum(2).abs() for _, gradient, value in pieces]).mean(0)
    np.testing.assert_allclose(hook.sampler.importance, (saliency / saliency.mean()).numpy(), rtol=1e-4)


@pytest.mark.parametrize("sharing", ["prefix", "separate"])
def test_tables_of_fields_that_a_step_does_not_draw_stay_as_they_are_to_the_last_bit(sharing: str) -> None:
    trainer = tiny_trainer(sharing, table="uniform", field_share=0.5, full_share=0.5)
    hook = hook_of(trainer)
    embedding = hook.supernet.embedding
    prefix = [embedding.table] if sharing == "prefix" else list(embedding.tables.values())
    start = [*embedding.layout.oov_rows, embedding.layout.total_rows]
    held = [t.weight.clone() for t in prefix]
    steps: list[list[bool]] = []

    def on_step(step: int, total: int, speed: float) -> None:
        drawn = hook.sampler.draw_fields(step - 1)
        assert drawn.sum() == 2
        changed = [
            any((t.weight[a:b] != h[a:b]).any() for t, h in zip(prefix, held, strict=True))
            for a, b in itertools.pairwise(start)
        ]
        assert not any(c and not d for c, d in zip(changed, drawn, strict=True))
        steps.append(changed)
        held[:] = [t.weight.clone() for t in prefix]

    trainer.run(on_step=on_step)
    assert np.array(steps).any(0).all()  # every field has had its turn


@pytest.mark.parametrize(
    ("sharing", "sampling"),
    [
        ("prefix", {"table": "probe"}),
        ("prefix", {"table": "grad", "field_share": 0.6}),
        ("prefix", {"table": "loss", "full_share": 0.2}),
        ("separate", {"table": "probe"}),
        ("separate", {"table": "grad", "field_share": 0.6}),
    ],
)
def test_a_resumed_fit_equals_one_that_was_not_interrupted(sharing: str, sampling: dict[str, Any]) -> None:
    whole = tiny_trainer(sharing, epochs=4, warmup=0.1, **sampling)
    kept: list[TrainState] = []

    def keep(epoch: Any, state: Any) -> None:
        if epoch.number == 2:
            now = state()
            kept.append(TrainState(load(save(now.tensors)), json.loads(json.dumps(now.meta))))

    whole.run(on_epoch=keep)
    resumed = tiny_trainer(sharing, epochs=4, warmup=0.1, **sampling)
    resumed.load(kept[0])
    resumed.run()
    assert_same_weights(whole, resumed)
    assert hook_of(whole).state() == hook_of(resumed).state()
    assert [e.auc for e in whole.history] == [e.auc for e in resumed.history]


def test_separate_tables_enter_the_backbone_at_the_scale_of_a_plain_models() -> None:
    """Unit variance in every dimension of every field made logits of a spread of 20 and more."""
    supernet = strategy("separate").supernet(PLAIN, (0, 1, 16), model=ModelOptions(init_std=0.1))
    assert isinstance(supernet.embedding, SeparateEmbedding)
    with torch.no_grad():
        assert float(supernet(ids_of(TINY.train)).std()) < 0.5
