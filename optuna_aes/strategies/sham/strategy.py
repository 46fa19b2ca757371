"""SHAM: hard masks on the columns of every field's table, searched on their own under a price of memory.

Tesi Xiao, Xia Xiao, Ming Chen, Youlong Cheng, 2022, arXiv 2208.08004. From the abstract: structural pruning of a supernet
through a hard auxiliary mask, directly in the discrete space, by a simple gradient-based method, with orthogonal regularity
on the tables. The body could not be read: that masks are 1[a > 0] with straight-through gradients in the manner of
AutoPrune, the formulas, and the price, are a reconstruction; the fall of the limit along a geometric schedule and the last
phase, in which the sizes passed are trained in turn, are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Dataset, Schema
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.paths import to_candidates
from optuna_aes.strategies.pruning.base import Pruning, gates
from optuna_aes.strategies.pruning.gradients import Batches
from optuna_aes.strategies.sham.hook import MaskHook, Record, ranks, record_of
from optuna_aes.strategies.sham.masks import SURROGATES


@dataclass(frozen=True)
class SHAM(Pruning):
    """Prunes columns during the fit, and trains what it passed on the way.

    The fit has three parts. Warm-up: all columns are open. Search: every step is also a step of the masks, under a limit of
    memory that falls geometrically from all to ``target``; the sizes at every level passed are recorded. Rehearsal: every
    step trains one of the recorded sizes, or the full ones, so that in the end one set of weights scores all of them alike.
    A score taken when a level is passed would compare weights of different age: large sizes are passed first.

    Args:
        warmup: Share of the steps with open masks.
        search: Share of the steps in which masks move; those that are left are the rehearsal.
        target: Share of the full parameters at which the search ends.
        marks: Memory levels at which sizes are recorded, in geometric steps.
        batch: What a mask step is taken on: ``"valid"``, a validation batch of its own, or ``"train"``, the step's batch,
            which costs nothing.
        rate: Step size η of the auxiliary variables, for gradients in units of their running mean size.
        start: The auxiliary variables' first value.
        bound: They stay within ± this.
        surrogate: Derivative in place of the step function's: ``"one"`` or ``"softplus"``.
        orthogonal: Weight λ_o of the orthogonal regularity; 0 leaves it out.
        levels: See :class:`Pruning`.
        score_rows: See :class:`Pruning`.

    Raises:
        InputError: If a value is out of range.
    """

    name: ClassVar[str] = "sham"

    warmup: float = 0.2
    search: float = 0.4
    target: float = 0.02
    marks: int = 48
    batch: str = "valid"
    rate: float = 1e-2
    start: float = 0.05
    bound: float = 0.5
    surrogate: str = "one"
    orthogonal: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch not in ("valid", "train"):
            raise InputError(f"batch={self.batch!r} is not known: give 'valid' or 'train'")
        if self.surrogate not in SURROGATES:
            raise InputError(f"surrogate={self.surrogate!r} is not known: give one of {', '.join(SURROGATES)}")
        if not (0 <= self.warmup < 1 and 0 < self.search <= 1 - self.warmup):
            raise InputError(
                f"warmup={self.warmup} and search={self.search} must be shares of the steps that are 1 or less together"
            )
        if not 0 < self.target < 1:
            raise InputError(f"target={self.target} is out of range: give a share between 0 and 1")
        if self.marks < 1:
            raise InputError(f"marks={self.marks} is out of range: give at least 1")
        if not (0 < self.rate < float("inf") and 0 < self.start <= self.bound < float("inf")):
            raise InputError(
                f"rate={self.rate}, start={self.start}, bound={self.bound}: give rate and start above 0, bound no less "
                "than start"
            )
        if not 0 <= self.orthogonal < float("inf"):
            raise InputError(f"orthogonal={self.orthogonal} is out of range: give 0 or more")

    def supernet(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        model: ModelOptions,
        seed: int = 0,
        partition: Partition | None = None,
    ) -> Supernet:
        """The untrained full-size model, with a gate on every column and a record of the search."""
        if partition is not None:
            raise InputError("SHAM has a size per field and no blocks")
        supernet = super().supernet(schema, candidates, model=model, seed=seed)
        embedding = supernet.embedding
        supernet.add_module("record", Record(embedding.fields, embedding.dim, marks=self.marks, start=self.start))
        return supernet

    def trainer(
        self,
        supernet: Supernet,
        dataset: Dataset,
        *,
        options: TrainOptions,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> Trainer:
        """The training with masks. It never stops early, and ends with its last weights: its AUC falls on purpose."""
        supernet.to(device)
        batches = Batches(dataset.valid, options.batch_size, seed=seed, device=torch.device(device))
        return Trainer(
            supernet,
            dataset.train,
            dataset.valid,
            unhindered(options),
            seed=seed,
            device=device,
            hook=MaskHook(supernet, batches, self, seed=seed),
            keep="last",
        )

    def finish(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> None:
        """Opens all masks again: which columns a size keeps is now a matter of their rank."""
        super().finish(supernet, dataset, seed=seed)
        gates(supernet).gate.fill_(1.0)

    def importance(self, supernet: Supernet, dataset: Dataset, *, seed: int = 0) -> Tensor:
        """How long every column was open during the search."""
        return ranks(record_of(supernet), self.bound)

    def path(self, supernet: Supernet) -> npt.NDArray[np.int64]:
        """The sizes at every level passed, between the full ones and none."""
        embedding = gates(supernet)
        passed = record_of(supernet).passed().cpu().numpy()
        ends = np.array([[embedding.dim], [0]]).repeat(embedding.fields, axis=1)
        return to_candidates(np.concatenate([ends[:1], passed, ends[1:]]), embedding.candidates)


def unhindered(options: TrainOptions) -> TrainOptions:
    """The options without what acts on a falling AUC: early stopping, and decay of the learning rate at a plateau."""
    schedule = "constant" if options.schedule == "plateau" else options.schedule
    return replace(options, patience=0, schedule=schedule)
