from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PLAIN, WITH_BAG, fields_for, ids_of, tiny_dataset, tiny_split
from safetensors.torch import load, save
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.data.dataset import Dataset, Split
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.evaluation import auc, logloss, predict
from optuna_aes.models.feed import Feed
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer, TrainState

DATA = tiny_dataset(WITH_BAG, rows=(330, 130, 130))  # 330 = 5 batches of 64 and one of 10
SIZES = {"user": 4, "tags": 2, "item": 1, "shop": 0}
CANDIDATES = (0, 1, 2, 4)


def plain_model(**options: Any) -> CTRModel:
    return CTRModel(WITH_BAG, SIZES, dim=4, options=ModelOptions(hidden=(8, 4), init_std=0.1, **options))


class RandomPaths(StepHook):
    """A hook that draws a path for every step, from a generator of its own and from torch's."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet = supernet
        self.rng = np.random.default_rng(7)
        self.losses: list[float] = []

    def before(self, step: int, steps: int) -> None:
        path = self.rng.integers(0, 4, (1, 4))
        path[0, 0] = int(torch.randint(0, 4, ()))
        self.supernet.embedding.set_paths(path, self.rng.random(4) < 0.8)

    def after(self, step: int, losses: Tensor) -> None:
        self.losses.append(float(losses.mean()))

    def state(self) -> dict[str, Any]:
        return {"rng": self.rng.bit_generator.state, "losses": self.losses}

    def load(self, state: Mapping[str, Any]) -> None:
        self.rng.bit_generator.state = state["rng"]
        self.losses = list(state["losses"])


def make_trainer(kind: str, **options: Any) -> Trainer:
    kind, _, tables = kind.partition(", ")
    chosen = TrainOptions(**{"epochs": 4, "batch_size": 64, "lr": 0.02, "l2": 1e-3, "patience": 0, **options})
    chosen = replace(chosen, tables=tables or "adam")
    if kind == "plain":
        return Trainer(plain_model(batch_norm=True, dropout=0.3), DATA.train, DATA.valid, chosen, seed=11)
    supernet = Supernet(
        WITH_BAG,
        CANDIDATES,
        options=ModelOptions(hidden=(8, 4), batch_norm=True, dropout=0.3, init_std=0.1),
        sharing=kind,
    )
    return Trainer(supernet, DATA.train, DATA.valid, chosen, seed=11, hook=RandomPaths(supernet))


def stored(state: TrainState) -> TrainState:
    """A state as it comes back from storage: safetensors and JSON."""
    return TrainState(load(save(state.tensors)), json.loads(json.dumps(state.meta)))


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
@pytest.mark.parametrize("kind", ["plain", "prefix", "separate", "plain, adagrad", "prefix, adagrad"])
def test_a_resumed_training_ends_bit_by_bit_as_an_uninterrupted_one(kind: str, schedule: str) -> None:
    states: list[TrainState] = []
    whole = make_trainer(kind, schedule=schedule, lr_decay=0.5)
    whole.run(on_epoch=lambda epoch, state: states.append(stored(state())))
    expected, last = whole.model.state_dict(), states[-1]
    for k, state in enumerate(states[:-1], start=1):
        resumed = make_trainer(kind, schedule=schedule, lr_decay=0.5)
        resumed.load(state)
        assert resumed.epoch == k
        ends: list[TrainState] = []
        torch.manual_seed(k)  # whatever else the new process drew before
        history = resumed.run(on_epoch=lambda epoch, state, ends=ends: ends.append(stored(state())))
        assert [(e.number, e.loss, e.auc) for e in history] == [(e.number, e.loss, e.auc) for e in whole.history]
        assert resumed.model.state_dict().keys() == expected.keys()
        assert all(torch.equal(t, expected[n]) for n, t in resumed.model.state_dict().items())
        assert ends[-1].tensors.keys() == last.tensors.keys()
        assert all(torch.equal(t, last.tensors[n]) for n, t in ends[-1].tensors.items())
        assert {**ends[-1].meta, "history": 0} == {**last.meta, "history": 0}


def test_a_finished_training_loads_as_finished_with_its_best_weights() -> None:
    states: list[TrainState] = []
    whole = make_trainer("plain")
    whole.run(on_epoch=lambda epoch, state: states.append(stored(state())))
    again = make_trainer("plain")
    again.load(states[-1])
    assert again.finished
    assert [e.number for e in again.run()] == [1, 2, 3, 4]
    assert all(torch.equal(t, again.model.state_dict()[n]) for n, t in whole.model.state_dict().items())


def test_a_state_may_be_loaded_twice() -> None:
    states: list[TrainState] = []
    make_trainer("plain").run(on_epoch=lambda epoch, state: states.append(stored(state())))
    before = {n: t.clone() for n, t in states[0].tensors.items()}
    first, second = make_trainer("plain"), make_trainer("plain")
    first.load(states[0])
    second.load(states[0])
    first.run()
    assert all(torch.equal(t, states[0].tensors[n]) for n, t in before.items())
    second.run()
    assert all(torch.equal(t, second.model.state_dict()[n]) for n, t in first.model.state_dict().items())


def scripted(scores: list[float]) -> Callable[[], float]:
    remaining = iter(scores)
    return lambda: next(remaining)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.6, 0.8, 0.7, 0.75, 0.9], 2, 4, 2),
        ([0.6, 0.8, 0.7, 0.85, 0.8, 0.8, 0.9], 2, 6, 4),
        ([0.6, 0.6, 0.6], 1, 2, 1),  # as good is not better
        ([0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3], 0, 8, 1),
    ],
)
def test_early_stopping_restores_the_best_weights(scores: list[float], patience: int, epochs: int, best: int) -> None:
    options = TrainOptions(epochs=8, batch_size=64, patience=patience)
    trainer = Trainer(plain_model(), DATA.train, DATA.valid, options, evaluate=scripted(scores))
    weights: list[dict[str, Tensor]] = []
    history = trainer.run(
        on_epoch=lambda epoch, state: weights.append({n: t.clone() for n, t in trainer.model.state_dict().items()})
    )
    assert [e.auc for e in history] == scores[:epochs]
    assert [e.number for e in history] == list(range(1, epochs + 1))
    final = trainer.model.state_dict()
    assert all(torch.equal(t, weights[best - 1][n]) for n, t in final.items())
    assert not all(torch.equal(t, weights[-1][n]) for n, t in final.items())


def test_early_stopping_counts_the_bad_epochs_before_a_resume() -> None:
    def make(scores: list[float]) -> Trainer:
        options = TrainOptions(epochs=8, batch_size=64, patience=2)
        return Trainer(plain_model(), DATA.train, DATA.valid, options, evaluate=scripted(scores))

    states: list[TrainState] = []
    whole = make([0.6, 0.8, 0.7, 0.75])
    whole.run(on_epoch=lambda epoch, state: states.append(stored(state())))
    resumed = make([0.75])
    resumed.load(states[2])  # after one epoch that was not better
    assert [e.auc for e in resumed.run()] == [0.6, 0.8, 0.7, 0.75]
    assert all(torch.equal(t, resumed.model.state_dict()[n]) for n, t in whole.model.state_dict().items())


def rates(schedule: str, scores: list[float], **tables: Any) -> list[float]:
    """The learning rate of the first step of every epoch, that of the tables over it included."""
    options = TrainOptions(
        epochs=len(scores), batch_size=330, lr=0.08, lr_decay=0.5, patience=0, schedule=schedule, **tables
    )
    trainer = Trainer(plain_model(), DATA.train, DATA.valid, options, evaluate=scripted(scores))
    seen: list[float] = []

    def note(step: int, steps: int, speed: float) -> None:
        assert trainer.rows.lr == trainer.lr * (options.rows_lr / options.lr)
        seen.append(trainer.lr)

    trainer.run(on_step=note)
    return seen


def test_the_learning_rate_follows_its_schedule() -> None:
    scores = [0.5, 0.4, 0.6, 0.5, 0.5]
    assert rates("plateau", scores) == [0.08, 0.08, 0.04, 0.04, 0.02]
    assert rates("plateau", scores, tables="adagrad", table_lr=0.5) == [0.08, 0.08, 0.04, 0.04, 0.02]
    assert rates("constant", scores) == [0.08] * 5
    assert rates("cosine", scores) == pytest.approx([0.04 * (1 + math.cos(math.pi * s / 5)) for s in range(5)])


@pytest.mark.parametrize("align", ["pad", "linear"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_with_every_field_dropped_trains(backbone: str, align: str) -> None:
    data = tiny_dataset(fields_for(backbone, WITH_BAG))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CTRModel(
            data.schema,
            dict.fromkeys(SIZES, 0),
            dim=4,
            options=ModelOptions(backbone=backbone, align=align, batch_norm=True, dropout=0.1),
        )
        trainer = Trainer(model, data.train, data.valid, TrainOptions(epochs=3, batch_size=64, lr=0.05))
        history = trainer.run()
        probabilities = predict(model, data.test)
    assert probabilities.shape == (120,)
    if model.embedding.linear is None:  # a constant, that moves towards the share of clicks
        assert len(set(probabilities.tolist())) == 1
        assert history[0].auc == 0.5
    else:  # first-order weights are left
        assert history[-1].auc > 0.6


def test_training_learns() -> None:
    data = tiny_dataset(PLAIN, rows=(2000, 500, 500))
    model = CTRModel(PLAIN, {"user": 4, "item": 4, "hour": 2}, dim=4, options=ModelOptions(hidden=(16,)))
    history = Trainer(model, data.train, data.valid, TrainOptions(epochs=6, batch_size=128, lr=0.02)).run()
    assert history[-1].loss < history[0].loss
    assert max(e.auc for e in history) == auc(predict(model, data.valid), data.valid.labels)
    assert auc(predict(model, data.test), data.test.labels) > 0.75


def test_rows_that_training_never_shows_stay_as_they_were() -> None:
    model = plain_model()
    before = model.embedding.tables["4"].weight.clone()
    keep = DATA.train.ids[:, 0] < 20  # users 20.. are only in the other splits
    train = Split(DATA.train.ids[keep], DATA.train.labels[keep])
    Trainer(model, train, DATA.valid, TrainOptions(epochs=2, batch_size=64, l2=0.1)).run()
    changed = (model.embedding.tables["4"].weight != before).any(dim=1)
    assert changed[1:20].all()
    assert not changed[20:].any()


class Recorder(nn.Module):
    """A model that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.seen: list[Tensor] = []

    def forward(self, ids: Tensor) -> Tensor:
        if self.training:
            self.seen.append(ids.clone())
        return self.bias.expand(len(ids)) + 0.01 * ids[:, 0]


@pytest.mark.parametrize(
    ("rows", "batch_size", "lengths"),
    [(64, 32, [32, 32]), (65, 32, [32, 33]), (66, 32, [32, 32, 2]), (5, 64, [5]), (3, 1, [1, 1, 1]), (3, 2, [3])],
)
def test_an_epoch_shows_every_row_once_and_leaves_no_single_row(rows: int, batch_size: int, lengths: list[int]) -> None:
    model, split = Recorder(), tiny_split(PLAIN, rows=rows)
    split.ids[:, 1] = np.arange(rows)
    trainer = Trainer(model, split, DATA.valid, TrainOptions(epochs=2, batch_size=batch_size), evaluate=lambda: 0.5)
    steps: list[tuple[int, int]] = []
    trainer.run(on_step=lambda step, total, speed: steps.append((step, total)))
    n = len(lengths)
    assert trainer.steps_per_epoch == n
    assert [len(ids) for ids in model.seen] == 2 * lengths
    assert steps == [(s, 2 * n) for s in range(1, 2 * n + 1)]
    epochs = [torch.cat(model.seen[:n])[:, 1].tolist(), torch.cat(model.seen[n:])[:, 1].tolist()]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(rows))
    if rows > 60:
        assert epochs[0] != epochs[1]
        assert epochs[0] != list(range(rows))


@pytest.mark.parametrize("kind", ["plain", "prefix", "separate"])
def test_batch_norm_survives_a_last_batch_of_one_row(kind: str) -> None:
    trainer = make_trainer(kind, batch_size=47, eval_batch_size=43, epochs=1)
    assert (330 % 47, 130 % 43) == (1, 1)
    assert len(trainer.run()) == 1


def test_the_loss_of_an_epoch_is_the_mean_over_rows() -> None:
    model, split = Recorder(), tiny_split(PLAIN, rows=70)
    options = TrainOptions(epochs=1, batch_size=32, lr=1e-30)
    (epoch,) = Trainer(model, split, split, options, evaluate=lambda: 0.5).run()
    labels = torch.from_numpy(split.labels).float()
    expected = F.binary_cross_entropy_with_logits(0.01 * ids_of(split)[:, 0], labels)
    assert epoch.loss == pytest.approx(float(expected), rel=1e-5)


def test_a_hook_sees_every_step_with_its_number_and_loss() -> None:
    class Note(RandomPaths):
        def before(self, step: int, steps: int) -> None:
            super().before(step, steps)
            calls.append(("before", step, steps))

        def after(self, step: int, losses: Tensor) -> None:
            super().after(step, losses)
            assert len(losses) == lengths[step % 6]
            assert self.supernet.backbone.tower.out.bias.grad is not None
            calls.append(("after", step, steps))

    calls: list[tuple[str, int, int]] = []
    steps, lengths = 12, [64] * 5 + [10]
    supernet = Supernet(WITH_BAG, CANDIDATES, options=ModelOptions(hidden=(8,)))
    hook = Note(supernet)
    options = TrainOptions(epochs=2, batch_size=64, patience=0)
    history = Trainer(supernet, DATA.train, DATA.valid, options, hook=hook).run()
    assert calls == [(when, s, steps) for s in range(steps) for when in ("before", "after")]
    assert history[0].loss == pytest.approx(np.average(hook.losses[:6], weights=lengths), rel=1e-5)


def test_the_seed_decides_and_the_callers_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - the global one is meant
    runs = []
    for seed in (0, 0, 1):
        options = TrainOptions(epochs=2, batch_size=64)
        trainer = Trainer(plain_model(dropout=0.5), DATA.train, DATA.valid, options, seed=seed)
        trainer.run()
        runs.append(trainer.model.state_dict())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert all(torch.equal(t, runs[1][n]) for n, t in runs[0].items())
    assert not all(torch.equal(t, runs[2][n]) for n, t in runs[0].items())


def test_dropout_is_on_in_every_epoch_though_scoring_switches_it_off() -> None:
    model = plain_model(dropout=0.5).eval()
    modes: list[bool] = []
    model.backbone.register_forward_hook(lambda module, args, output: modes.append(module.training))
    Trainer(model, DATA.train, DATA.valid, TrainOptions(epochs=2, batch_size=330, patience=0)).run()
    assert modes == [True, False, True, False]


def test_a_diverging_training_says_what_to_do() -> None:
    trainer = Trainer(plain_model(), DATA.train, DATA.valid, TrainOptions(epochs=9, batch_size=64, lr=1e30))
    with pytest.raises(InputError, match=r"diverged in epoch \d.*lower the learning rate"):
        trainer.run()
    with pytest.raises(InputError, match="not finite"):
        auc(np.array([0.5, np.nan]), np.array([0, 1]))


@pytest.mark.parametrize("batch_size", [1, 7, 129, 130, 1000])
@pytest.mark.parametrize("training", [True, False])
def test_predictions_do_not_depend_on_batches_and_leave_the_mode(batch_size: int, training: bool) -> None:
    model = plain_model(batch_norm=True, dropout=0.5).train(training)
    probabilities = predict(model, DATA.valid, batch_size)
    assert probabilities.dtype == np.float32
    assert all(module.training == training for module in model.modules())
    model.eval()
    expected = torch.sigmoid(model(ids_of(DATA.valid))).detach().numpy()
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_measures() -> None:
    labels, probabilities = np.array([0, 1, 1, 0]), np.array([0.1, 0.4, 0.35, 0.35], dtype=np.float32)
    assert auc(probabilities, labels) == roc_auc_score(labels, probabilities) == 0.875
    expected = -np.log([0.9, 0.4, 0.35, 0.65]).mean()
    assert logloss(probabilities, labels) == pytest.approx(expected, rel=1e-6)
    certain = np.array([1.0, 1.0, 1.0, 0.0], dtype=np.float32)  # the first is certain and wrong
    assert logloss(certain, labels) == pytest.approx(-math.log(1e-7) / 4, rel=1e-4)


def test_a_feed_takes_read_only_and_strided_arrays() -> None:
    ids, labels = DATA.train.ids[::-2], DATA.train.labels[::-2]
    labels.flags.writeable = False
    feed = Feed(Split(ids, labels), torch.device("cpu"))
    got_ids, got_labels = feed.batch(slice(3, 9))
    assert len(feed) == 165
    assert np.array_equal(got_ids.numpy(), ids[3:9])
    assert got_labels.dtype == torch.float32
    assert got_labels.tolist() == labels[3:9].tolist()


READ_ONLY = """
import sys, torch
torch.set_warn_always(True)  # torch keeps quiet after the first time
from optuna_aes.data.dataset import Dataset
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.supernet import SubnetScorer, Supernet
from optuna_aes.models.evaluation import predict
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
data = Dataset.open(sys.argv[1])
assert not data.train.ids.flags.writeable
model = CTRModel(data.schema, dict.fromkeys(data.schema.cardinalities, 2), dim=4, options=ModelOptions(batch_norm=True))
Trainer(model, data.train, data.valid, TrainOptions(epochs=2, batch_size=64)).run()
predict(model, data.test)
supernet = Supernet(data.schema, (0, 2), options=ModelOptions())
SubnetScorer(supernet, data.valid, rows=50)(supernet.embedding.paths.numpy())
"""


def test_memory_mapped_splits_give_no_warning(tmp_path: Path) -> None:
    DATA.save(tmp_path / "data")
    # A process of its own, as some of torch's warnings come once and are no Python warnings.
    command = [sys.executable, "-c", READ_ONLY, str(tmp_path / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_memory_mapped_dataset_trains_to_the_same_weights(tmp_path: Path) -> None:
    mapped = DATA.save(tmp_path / "data")
    options = TrainOptions(epochs=2, batch_size=64)

    def weights(data: Dataset) -> dict[str, Tensor]:
        trainer = Trainer(plain_model(), data.train, data.valid, options)
        trainer.run()
        return trainer.model.state_dict()

    ours, theirs = weights(DATA), weights(mapped)
    assert all(torch.equal(t, theirs[n]) for n, t in ours.items())


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"l2": -1e-3},
        {"l2": float("nan")},
        {"patience": -1},
        {"lr_decay": 0.0},
        {"lr_decay": 1.1},
        {"schedule": "linear"},
        {"tables": "sgd"},
        {"table_lr": 0.0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InputError, match=f"{name}="):
        TrainOptions(**options)


@pytest.mark.parametrize("digits", [1, 9])
def test_auc_is_scikit_learns_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.3).astype(np.uint8)
    probabilities = np.round(rng.random(500), digits).astype(np.float32)
    assert auc(probabilities, labels) == pytest.approx(roc_auc_score(labels, probabilities), abs=1e-12)
    assert np.isnan(auc(probabilities[:3], np.ones(3)))
