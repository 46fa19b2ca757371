"""Us: the package's own model and trainer, as a search uses them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optuna_aes.models.evaluation import predict
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from studies.bench.contestants.base import OnStep, Work


class Ours:
    """The trainer on a model whose fields all have the full size.

    Args:
        work: What to train.
        compiled: Whether the step is compiled.
        amp: Whether matrix products take bfloat16.
        tables: Optimiser of the tables, and its learning rate; None for that of the rest.
    """

    def __init__(
        self, work: Work, *, compiled: bool, amp: bool = False, tables: tuple[str, float | None] = ("adam", None)
    ) -> None:
        self.work = work
        data = work.dataset
        options = ModelOptions(backbone=work.backbone, hidden=work.hidden, init_std=work.std)
        sizes = {f.name: work.dim for f in data.schema.fields}
        self.model = CTRModel(data.schema, sizes, dim=work.dim, options=options, seed=work.seed)
        train = TrainOptions(
            epochs=1000,
            batch_size=work.batch_size,
            lr=work.lr,
            tables=tables[0],
            table_lr=tables[1],
            patience=0,
            schedule="constant",
            compile=compiled,
            amp=amp,
        )
        # No validation: the other loops have none.
        self.trainer = Trainer(self.model, data.train, data.valid, train, seed=work.seed, evaluate=lambda: 0.5)

    def train(self, on_step: OnStep) -> None:
        self.trainer.run(on_step=lambda *_: on_step())

    def predict(self) -> npt.NDArray[np.floating]:
        return predict(self.model, self.work.dataset.test)
