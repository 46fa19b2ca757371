"""Two processes that train one model come to what one process comes to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import WITH_BAG, tiny_dataset

from optuna_aes.data.dataset import Split
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.parallel import DataParallel, share_of
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer

ROWS, EPOCHS = 400, 3
SIZES = {"user": 4, "tags": 2, "item": 3, "shop": 0}


def train(train: Split, valid: Split, *, batch: int, parallel: bool, norm: bool) -> dict[str, torch.Tensor]:
    options = ModelOptions(hidden=(8,), init_std=0.1, batch_norm=norm)
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=options, seed=0)
    hook = DataParallel(model) if parallel else None
    # One step an epoch: then the order of the rows, which is drawn, does not matter.
    settings = TrainOptions(epochs=EPOCHS, batch_size=batch, lr=1e-2, l2=1e-3, patience=0, schedule="constant")
    trainer = Trainer(model, train, valid, settings, seed=0, hook=hook, keep="last")
    trainer.run()
    return {name: value.clone() for name, value in model.state_dict().items()}


def epochs_of_two_minds(rank: int, share: Split, valid: Split) -> list[float]:
    """The AUC of each epoch where every process has found another one."""
    model = CTRModel(WITH_BAG, SIZES, dim=4, options=ModelOptions(hidden=(8,)), seed=0)
    found = iter(((0.6, 0.7, 0.65, 0.64), (0.9, 0.8, 0.7))[rank])  # alone, the second one would end after its third
    settings = TrainOptions(epochs=10, batch_size=ROWS // 2, patience=2)
    trainer = Trainer(model, share, valid, settings, hook=DataParallel(model), evaluate=lambda: next(found, 0.0))
    return [epoch.auc for epoch in trainer.run()]


def work(rank: int, folder: str, norm: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    data = tiny_dataset(WITH_BAG, (ROWS + 1, 100, 100))
    share = share_of(data.train)
    assert len(share.labels) == ROWS // 2
    torch.save(train(share, data.valid, batch=ROWS // 2, parallel=True, norm=norm), f"{folder}/{rank}.pt")
    assert epochs_of_two_minds(rank, share, data.valid) == [0.6, 0.7, 0.65, 0.64]
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_two_processes(tmp_path: Path, norm: bool) -> None:
    mp.spawn(work, (str(tmp_path), norm), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    if norm:  # takes the statistics of each process's own rows
        return
    data = tiny_dataset(WITH_BAG, (ROWS + 1, 100, 100))
    whole = replace(data.train, ids=data.train.ids[:ROWS], labels=data.train.labels[:ROWS])
    alone = train(whole, data.valid, batch=ROWS, parallel=False, norm=norm)
    untrained = CTRModel(WITH_BAG, SIZES, dim=4, options=ModelOptions(hidden=(8,), init_std=0.1), seed=0)
    moved = 0.0
    for name, value in untrained.state_dict().items():
        if value.is_floating_point():
            moved = max(moved, float((alone[name] - value).abs().max()))
            assert torch.allclose(first[name], alone[name], atol=1e-5), name
    assert moved > 2e-2
