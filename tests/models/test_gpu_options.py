"""What is made for GPUs, as far as a CPU can tell: data that does not fit there, deterministic algorithms."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import PLAIN, WITH_BAG, tiny_dataset, tiny_split

from optuna_aes.models import feed as feed_module
from optuna_aes.models.evaluation import predict
from optuna_aes.models.feed import AHEAD, Feed, fits
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.reproducible import deterministic
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer

CPU = torch.device("cpu")


def trained(data: Any, **changes: Any) -> Trainer:
    schema = data.schema
    model = CTRModel(
        schema, {f.name: 4 for f in schema.fields}, dim=4, options=ModelOptions(hidden=(16,), init_std=0.1)
    )
    options: dict[str, Any] = {"epochs": 3, "batch_size": 128, "lr": 1e-2, "patience": 0}
    trainer = Trainer(model, data.train, data.valid, TrainOptions(**{**options, **changes}))
    trainer.run()
    return trainer


def test_what_does_not_fit_comes_batch_by_batch_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_dataset(WITH_BAG, (1000, 120, 120))
    whole = trained(data)
    scores = predict(whole.model, data.test, 50)
    monkeypatch.setattr(feed_module, "fits", lambda size, device: False)
    parts = trained(data)
    assert not parts.train_feed.resident
    assert all(torch.equal(v, parts.model.state_dict()[n]) for n, v in whole.model.state_dict().items())
    assert [e.auc for e in parts.history] == [e.auc for e in whole.history]
    assert (predict(parts.model, data.test, 50) == scores).all()


def test_batches_are_fetched_ahead_and_no_more_than_that() -> None:
    feed, asked = Feed(tiny_split(PLAIN, 100), CPU, resident=False), list[int]()

    def indices() -> Any:
        for at in range(10):
            asked.append(at)
            yield torch.arange(10 * at, 10 * at + 10)

    found = feed.batches(indices())
    ids, labels = next(found)
    assert asked == list(range(AHEAD + 1))
    assert torch.equal(ids, feed.ids[:10])
    assert labels.dtype == torch.float32
    assert len(list(found)) == 9
    torch.testing.assert_close(next(feed.batches([slice(3, 7)])), feed.batch(slice(3, 7)))

    def broken() -> Any:
        yield torch.tensor([1000])

    with pytest.raises(IndexError):
        list(feed.batches(broken()))


def test_what_fits_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    gpu: Any = SimpleNamespace(type="cuda")
    assert fits(10**15, CPU)
    assert fits(500, gpu)
    assert not fits(501, gpu)


def test_deterministic_algorithms_are_asked_for_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    during: list[bool] = []
    data = tiny_dataset(WITH_BAG)
    plain = trained(data)
    monkeypatch.setattr(
        CTRModel,
        "forward",
        _noting(CTRModel.forward, lambda: during.append(torch.are_deterministic_algorithms_enabled())),
    )
    again = trained(data, deterministic=True)
    assert set(during) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"
    assert all(torch.equal(v, again.model.state_dict()[n]) for n, v in plain.model.state_dict().items())


def _noting(forward: Any, note: Any) -> Any:
    def noted(self: Any, ids: Any) -> Any:
        note()
        return forward(self, ids)

    return noted
