"""One trial at a time, trained by several processes or GPUs: `torchrun --nproc-per-node 2 torchrun.py`.

The first process asks the study, the others learn from it what was suggested (Optuna's TorchDistributedTrial); all train one
model on their shares of the rows. `pip install "optuna-aes[distributed]"`. AES_STORAGE names the study's database.
With AES_SHARDING=row_wise, table_wise or auto the tables are divided over the processes too: `pip install
"optuna-aes[torchrec]"`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import optuna
import torch
import torch.distributed as dist
from optuna_integration import TorchDistributedTrial

from optuna_aes import AdaSSSampler, EmbeddingSpace, MemoryBudget, ModelOptions, TrainOptions
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.models.model import CTRModel
from optuna_aes.models.parallel import DataParallel, share_of
from optuna_aes.models.sharded import ShardOptions, sharded_model
from optuna_aes.models.training import Trainer
from optuna_aes.storage import open_storage

TRIALS, BATCH = 4, 1024
SHARDING = os.environ.get("AES_SHARDING", "")
FIELDS = (PlantedField("user", 300, 3), PlantedField("item", 200, 3), PlantedField("noise", 500, 0, main=0.0))


def main() -> None:
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    first, device = dist.get_rank() == 0, torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(device)
    data = planted(FIELDS, rows=(20_000, 5_000, 5_000), seed=0)  # yours: Dataset.open("clicks.encoded")
    space = EmbeddingSpace(data.schema.cardinalities, candidates=(0, 2, 4, 8))
    budget = MemoryBudget(space, fraction=0.5)

    def model_of(sizes: Mapping[str, int]) -> CTRModel:
        options = ModelOptions(hidden=(32,), init_std=0.1)
        if not SHARDING:
            return CTRModel(data.schema, sizes, dim=8, options=options, seed=0)
        shards = ShardOptions(sharding=SHARDING, lr=0.1)
        return sharded_model(data.schema, sizes, dim=8, options=options, shards=shards, device=device, seed=0)

    def objective(single: optuna.Trial | None) -> tuple[float, float]:
        trial = TorchDistributedTrial(single)
        sizes = space.suggest(trial)
        budget.check(trial, sizes)
        model = model_of(sizes)
        options = TrainOptions(epochs=3, batch_size=BATCH // dist.get_world_size(), lr=1e-2)
        hook = DataParallel(model.to(device))
        trainer = Trainer(model, share_of(data.train), data.valid, options, seed=0, device=device, hook=hook)
        trainer.run()
        return float(trainer.best_auc), float(space.cost(sizes).params)

    if first:
        study = optuna.create_study(
            storage=open_storage(os.environ.get("AES_STORAGE", "sqlite:///torchrun.db")),
            study_name="torchrun",
            load_if_exists=True,
            directions=["maximize", "minimize"],
            sampler=AdaSSSampler(space, budget, seed=0),
        )
        study.optimize(objective, n_trials=TRIALS)
        for found in study.best_trials:
            print(f"AUC {found.values[0]:.4f}  {found.values[1]:,.0f} parameters  {space.from_params(found.params)}")
    else:
        for _ in range(TRIALS):
            with suppress(optuna.TrialPruned):  # over budget: the first process has recorded it
                objective(None)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
