"""Unstructured pruning by magnitude with the bytes of its indices counted, on a recipe's data, for several seeds.

``python -m studies.bench.unstructured studies/adult_adass.toml [--shares 0.1 0.25 0.5] [--seeds 3] [--start trained]``

The full-size model is trained; the smallest weights of its tables, wherever they stand, are set to zero until what is left
can be stored in a share of the full-size bytes: as compressed rows, with a bitmap, or as it is, whichever takes least. Then it
is trained again with the zeros held, from the weights that are left (as the public benchmark of Tran et al., 2024, arXiv
2406.17335, prunes) or from new ones. What ``optuna-aes compare`` gives for ``magnitude`` at the same shares needs no indices.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from optuna_aes import CTRModel, Task
from optuna_aes.cli import request
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.recipe import merged
from optuna_aes.errors import AesError
from optuna_aes.models.embedding import MixedEmbedding
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.dnis.sparsity import pruned_to, sparse_cost


class Held(StepHook):
    """Holds the zeros of a table through a training; see :class:`optuna_aes.models.step_hook.StepHook`."""

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.kept = table != 0

    @torch.no_grad()
    def hold(self) -> None:
        """Sets to zero again what the last step has moved."""
        self.table.mul_(self.kept)

    def before(self, step: int, steps: int) -> None:
        """Before every step."""
        self.hold()


def full_model(task: Task, seed: int) -> CTRModel:
    """The untrained full-size model."""
    space = task.space
    return CTRModel(task.dataset.schema, space.uniform(space.full), dim=space.full, options=task.model, seed=seed)


def table_of(model: CTRModel) -> Tensor:
    """The one table that all fields share at one size."""
    assert isinstance(model.embedding, MixedEmbedding)
    (table,) = model.embedding.tables.values()
    return table.get_parameter("weight").data


def trained(task: Task, model: CTRModel, seed: int, held: Held | None = None) -> float:
    """Trains a model to its end, and gives its test AUC."""
    splits, options = task.dataset, task.train
    evaluate: Callable[[], float] | None = None
    if held is not None:

        def evaluate() -> float:
            held.hold()
            return auc(predict(model, splits.valid, options.eval_batch_size), splits.valid.labels)

    Trainer(model, splits.train, splits.valid, options, seed=seed, device="cpu", hook=held, evaluate=evaluate).run()
    return auc(predict(model, splits.test, options.eval_batch_size), splits.test.labels)


def run(task: Task, shares: Sequence[float], seed: int, start: str) -> list[tuple[float, float]]:
    """Test AUC and share of nonzero weights: of the full-size model, then at every share of its bytes."""
    model = full_model(task, seed)
    found = [(trained(task, model, seed), 1.0)]
    table = table_of(model).numpy().copy()
    for share in shares:
        pruned = pruned_to(table, share * table.nbytes)
        again = full_model(task, seed)
        if start == "trained":
            again.load_state_dict(model.state_dict())
        mine = table_of(again)
        mine.copy_(torch.from_numpy(np.where(pruned != 0, mine.numpy(), 0.0)))
        found.append((trained(task, again, seed, Held(mine)), sparse_cost(mine.numpy()).share))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", choices=["trained", "scratch"], default="trained")
    parser.add_argument("--split", default=None, help="in place of the recipe's")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        changes = {} if given.split is None else {"split": given.split}
        options = merged(given.recipe, {**asdict(SearchOptions()), **changes}, list(changes))
        task = request.task_of(request.wish_of(options), request.open_data(options))
    except AesError as error:
        raise SystemExit(str(error)) from None
    rows = np.array([run(task, given.shares, seed, given.start) for seed in range(given.seeds)])
    print("| of full-size bytes | weights left | test AUC |\n| --- | --- | --- |")
    spread = 1 if given.seeds > 1 else 0
    for at, share in enumerate([1.0, *given.shares]):
        aucs, left = rows[:, at, 0], rows[:, at, 1].mean()
        print(f"| {share:.0%} | {left:.1%} | {aucs.mean():.4f} ± {aucs.std(ddof=spread):.4f} |", flush=True)


if __name__ == "__main__":
    main()
