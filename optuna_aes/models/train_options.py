"""How a model is trained: what the loop, the tables' optimiser and the compiler are told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optuna_aes.errors import InputError
from optuna_aes.models.row_optimizers import ROW_OPTIMIZERS

DIVERGENCE_REMEDY = "lower the learning rate (lr), or raise the weight decay (l2)"
"""What a user can do where weights became infinite."""


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained.

    Args:
        epochs: Passes over the training rows, at most.
        batch_size: Rows of a step.
        lr: Adam's learning rate.
        tables: Optimiser of the tables: ``"adam"``, or ``"adagrad"``, which keeps one number a row in place of one more table
            and is faster where tables are large (both as :mod:`optuna_aes.models.row_optimizers` has them).
        table_lr: Its learning rate; None takes ``lr`` for Adam, and 20 times that for Adagrad, whose steps are shorter.
        l2: Weight decay of the tables, added to their gradient.
        decay: Which rows decay: ``"touched"`` (those of the batch; costs nothing) or ``"all"`` (every row at every step, as
            frameworks with dense gradients do; values that are rare are then held near 0, at the cost of a sweep over the
            tables).
        patience: Training stops after this many epochs without a better validation AUC; 0 never stops it.
        schedule: ``"plateau"``: the learning rate is multiplied by ``lr_decay`` at every epoch without a better validation
            AUC; ``"cosine"``: it falls to 0 along half a cosine over all epochs; ``"constant"``.
        lr_decay: See ``schedule``.
        eval_batch_size: Rows of a forward pass without gradients.
        compile: Whether ``torch.compile`` compiles the training step: some seconds at the first one, and a tenth to a
            fifth off every later one. On the CPU it needs a C++ compiler (where there is none, a warning says so), and leaves
            out backbones with dropout, which it would make slower.
        amp: Whether the backbone's training steps compute in bfloat16 (tables, updates and validation stay float32): faster
            on GPUs, and on CPUs that have instructions for it; where a CPU has none, a warning says so.
        deterministic: Whether only deterministic algorithms are taken, so that a GPU gives the same bits each time.
    """

    epochs: int = 10
    batch_size: int = 4096
    lr: float = 1e-3
    tables: str = "adam"
    table_lr: float | None = None
    l2: float = 0.0
    decay: str = "touched"
    patience: int = 2
    schedule: str = "plateau"
    lr_decay: float = 0.1
    eval_batch_size: int = 16384
    compile: bool = False
    amp: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} is out of range: give at least 1")
        if self.decay not in ("touched", "all"):
            raise InputError(f"decay={self.decay!r} is not known: give 'touched' or 'all'")
        if self.tables not in ROW_OPTIMIZERS:
            raise InputError(f"tables={self.tables!r} is not known: give one of {', '.join(ROW_OPTIMIZERS)}")
        if self.table_lr is not None and not 0 < self.table_lr < math.inf:
            raise InputError(f"table_lr={self.table_lr} must be above 0")
        if self.schedule not in ("plateau", "cosine", "constant"):
            raise InputError(f"schedule={self.schedule!r} is not known: give 'plateau', 'cosine' or 'constant'")
        if not 0 < self.lr < math.inf:
            raise InputError(f"lr={self.lr} must be above 0")
        if not 0 <= self.l2 < math.inf or self.patience < 0 or not 0 < self.lr_decay <= 1:
            raise InputError(
                f"l2={self.l2}, patience={self.patience} must be 0 or more and lr_decay={self.lr_decay} in (0, 1]"
            )

    @property
    def rows_lr(self) -> float:
        """The learning rate of the tables."""
        if self.table_lr is not None:
            return self.table_lr
        return self.lr if self.tables == "adam" else 20 * self.lr
