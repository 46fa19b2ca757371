"""Tables divided over two processes by TorchRec: they look up and learn what whole ones do, and are put together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from helpers import WITH_BAG, ids_of, tiny_dataset

from optuna_aes.errors import InputError
from optuna_aes.export import load_model, save_model
from optuna_aes.models.evaluation import predict
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.parallel import DataParallel, share_of
from optuna_aes.models.sharded import ShardOptions, fill, gathered, sharded_model
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer

ROWS, DIM = 400, 6
SIZES = {"user": 4, "tags": 2, "item": 6, "shop": 0}
CASES = {"deepfm": ("pad", "row_wise"), "mlp": ("linear", "table_wise")}


def shards_of(kind: str, **changes: Any) -> ShardOptions:
    return ShardOptions(sharding=kind, **changes)


def options_of(backbone: str) -> ModelOptions:
    return ModelOptions(backbone=backbone, hidden=(8,), init_std=0.1, align=CASES[backbone][0])


def check_same_outputs(backbone: str, kind: str) -> None:
    """Whole weights that are filled in give the same outputs, and come back as they were."""
    data, options = tiny_dataset(WITH_BAG), options_of(backbone)
    whole = CTRModel(WITH_BAG, SIZES, dim=DIM, options=options, seed=3)
    if whole.embedding.linear is not None:
        whole.embedding.linear.weight.normal_(generator=torch.Generator().manual_seed(5))
    model = sharded_model(WITH_BAG, SIZES, dim=DIM, options=options, shards=shards_of(kind))
    held = sum(t.numel() for name, t in model.embedding.parts.local() if "." not in name.partition(".")[2])
    stored = sum(t.rows * model.embedding._width(t) for t in model.embedding.tables)
    assert 0 < held < stored, "every process holds a part"
    fill(model, whole.state_dict())
    ids = ids_of(data.valid)[dist.get_rank() :: 2]  # other rows in each process
    with torch.no_grad():
        assert torch.allclose(model(ids), whole(ids), atol=1e-6)
    state = gathered(model)
    assert (state is None) == (dist.get_rank() > 0)
    if state is not None:
        assert state.keys() == whole.state_dict().keys()
        assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


def trainer_of(backbone: str, kind: str, *, rows: int, epochs: int = 3) -> Trainer:
    """One step an epoch over so many rows in all; the order of the rows, which is drawn, does not matter then."""
    data = tiny_dataset(WITH_BAG, (rows, 100, 100))
    model = sharded_model(
        WITH_BAG, SIZES, dim=DIM, options=options_of(backbone), shards=shards_of(kind, lr=0.1, l2=1e-3)
    )
    fill(model, CTRModel(WITH_BAG, SIZES, dim=DIM, options=options_of(backbone), seed=3).state_dict())
    settings = TrainOptions(
        epochs=epochs, batch_size=rows // dist.get_world_size(), lr=1e-2, patience=0, schedule="cosine"
    )
    return Trainer(model, share_of(data.train), data.valid, settings, seed=0, hook=DataParallel(model))


def work(rank: int, processes: int, folder: str, backbone: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/group-of-{processes}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=processes)
    kind = CASES[backbone][1] if processes > 1 else "auto"
    if processes > 1:
        check_same_outputs(backbone, kind)
    trainer = trainer_of(backbone, kind, rows=ROWS)
    trainer.run()
    state = gathered(trainer.model)
    if state is not None:
        torch.save(state, f"{folder}/{processes}.pt")
    # Stopped after an epoch and taken up by another trainer, it ends with the same weights, which each process kept.
    first, last = trainer_of(backbone, kind, rows=ROWS), trainer_of(backbone, kind, rows=ROWS)
    kept: list[Any] = []

    def keep(epoch: Any, state: Any) -> None:
        now = state()
        kept.append(type(now)({n: t.clone() for n, t in now.tensors.items()}, now.meta))

    first.run(on_epoch=keep)
    last.load(kept[0])
    last.run()
    again = gathered(last.model)
    if state is not None and again is not None:
        assert all(torch.equal(value, again[name]) for name, value in state.items())
        dataset = tiny_dataset(WITH_BAG, (ROWS, 100, 100))
        out = save_model(f"{folder}/model", again, dataset, sizes=SIZES, dim=DIM, options=options_of(backbone))
        served = predict(load_model(out), dataset.valid)
    ours = predict(last.model, tiny_dataset(WITH_BAG, (ROWS, 100, 100)).valid)  # all of them take part in it
    if again is not None:
        assert abs(served - ours).max() < 1e-6
    dist.destroy_process_group()


def spawn(processes: int, folder: Path, backbone: str) -> dict[str, torch.Tensor]:
    mp.spawn(work, (processes, str(folder), backbone), nprocs=processes)
    found: dict[str, torch.Tensor] = torch.load(folder / f"{processes}.pt")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backbone", CASES)
def test_two_processes(tmp_path: Path, backbone: str) -> None:
    for package in ("fbgemm_gpu", "torchrec"):
        pytest.importorskip(package, reason="see Install in the README")
    two, one = spawn(2, tmp_path, backbone), spawn(1, tmp_path, backbone)
    began = CTRModel(WITH_BAG, SIZES, dim=DIM, options=options_of(backbone), seed=3).state_dict()
    assert two.keys() == began.keys()
    for name, value in one.items():
        assert torch.allclose(two[name], value, atol=1e-5), name
    assert max(float((one[name] - value).abs().max()) for name, value in began.items() if "tables" in name) > 2e-2


def test_what_cannot_be_divided() -> None:
    with pytest.raises(InputError, match="sharding='columns' is not known: give one of auto"):
        ShardOptions(sharding={"user": "columns"})
    with pytest.raises(InputError, match="optimizer='sgd'"):
        ShardOptions(optimizer="sgd")
    with pytest.raises(InputError, match=r"lr=0\.0 must be above 0"):
        ShardOptions(lr=0.0)
    with pytest.raises(InputError, match="needs processes in a group: start them with torchrun"):
        sharded_model(WITH_BAG, SIZES, dim=DIM, options=ModelOptions())
    with pytest.raises(InputError, match="model is not divided"):
        gathered(CTRModel(WITH_BAG, SIZES, dim=DIM, options=ModelOptions()))
