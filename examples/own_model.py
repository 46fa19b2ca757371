"""Search embedding sizes for a PyTorch model of your own, in plain Optuna.

Nothing of optuna_aes trains here: it supplies the space, the budget, the sampler and the pruner. Replace `clicks` with your
data and `Model` with your model. Run it with `python own_model.py`; it takes some seconds on a CPU.
"""

from __future__ import annotations

import numpy as np
import optuna
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes import AdaSSSampler, BudgetPruner, EmbeddingSpace, MemoryBudget, PolicyOptions, Sizes

ROWS = {"user": 100, "item": 60, "session": 400}


def clicks(rows: int = 12_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and labels: user and item attract each other in three dimensions, and the session means nothing."""
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(n, size=rows) for n in ROWS.values()], axis=1)
    user, item = rng.normal(1.0, size=(ROWS["user"], 3)), rng.normal(size=(ROWS["item"], 3))
    logit = (user[ids[:, 0]] * item[ids[:, 1]]).sum(1)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logit))
    return torch.from_numpy(ids), torch.from_numpy(labels).float()


class Model(nn.Module):
    """A table of its own size for every field; a field of size 0 has none."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fields = [(column, name) for column, name in enumerate(ROWS) if sizes[name] > 0]
        self.tables = nn.ModuleDict({name: nn.Embedding(ROWS[name], sizes[name]) for _, name in self.fields})
        width = sum(sizes.values())
        self.tower = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1)) if width else None
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, shape `(batch,)`."""
        if self.tower is None:
            return self.bias.expand(len(ids))
        embedded = torch.cat([self.tables[name](ids[:, column]) for column, name in self.fields], dim=1)
        return self.tower(embedded).squeeze(1) + self.bias


def train(sizes: Sizes, ids: Tensor, labels: Tensor) -> float:
    """Trains a model of these sizes; its validation AUC."""
    torch.manual_seed(0)
    model, cut = Model(sizes), len(labels) * 3 // 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(6):
        for batch in torch.randperm(cut).split(512):
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(model(ids[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        return float(roc_auc_score(labels[cut:], model(ids[cut:])))


def main(trials: int = 32) -> optuna.Study:
    """Searches, and prints the front."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ids, labels = clicks()
    space = EmbeddingSpace(ROWS, candidates=(0, 1, 2, 4, 8))
    budget = MemoryBudget(space, fraction=0.4)
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        # Two budget levels, so that the front is traced and not only its end; groups are small because trials are few.
        sampler=AdaSSSampler(space, budget, options=PolicyOptions(levels=(1.0, 0.5), group=4, horizon=trials), seed=0),
        pruner=BudgetPruner(budget),
    )

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        sizes = space.suggest(trial)
        budget.check(trial, sizes)  # records the constraint; prunes what does not fit, before any training
        return train(sizes, ids, labels), space.cost(sizes).params

    study.optimize(objective, n_trials=trials)
    full = train(space.uniform(space.full), ids, labels)
    print(f"AUC {full:.4f}  {budget.full_params:>6,} parameters  full size everywhere")
    print(f"front of {len(study.trials)} trials, budget {budget.params:,} parameters:")
    for trial in sorted(study.best_trials, key=lambda t: t.values[1]):
        print(f"AUC {trial.values[0]:.4f}  {trial.values[1]:>6,.0f} parameters  {space.from_params(trial.params)}")
    return study


if __name__ == "__main__":
    main()
