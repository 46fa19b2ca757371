"""The one training loop: right-sized models and supernets, CPU and CUDA, resumable at every epoch's end."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.data.dataset import Split
from optuna_aes.errors import InputError
from optuna_aes.models.compiled import CompiledBackbones, can_compile
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.feed import Feed
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.memory import keep_freed_memory
from optuna_aes.models.model import dense_parameters, row_tables, seeded
from optuna_aes.models.precision import logits, takes_bfloat16
from optuna_aes.models.reproducible import deterministic
from optuna_aes.models.row_optimizers import ROW_OPTIMIZERS, RowAdam
from optuna_aes.models.rows import SelfUpdating, TouchedParts
from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.train_options import DIVERGENCE_REMEDY, TrainOptions
from optuna_aes.models.whole import WholeTables


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: its number from 1, mean loss, validation AUC, seconds of work, rows per second of training.

    Rows per second are by the clock on the wall, for whoever waits; seconds are those of :func:`work_seconds`.
    """

    number: int
    loss: float
    auc: float
    seconds: float
    rows_per_second: float


@dataclass
class TrainState:
    """All that a resumed training needs: tensors by name, and JSON-ready values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)


OnEpoch = Callable[[Epoch, Callable[[], TrainState]], None]
OnStep = Callable[[int, int, float], None]


def work_seconds(device: torch.device) -> float:
    """A clock for what work costs: of two readings, the difference counts.

    On the CPU it is the time that this process computed, over all its threads: what other programs took meanwhile, or a
    pause, is none of the work's cost. On a GPU, which no process's clock counts, it is the clock on the wall.
    """
    return time.perf_counter() if device.type == "cuda" else time.process_time()


class Trainer:
    """Trains a model on a dataset's splits.

    The same seed gives the same weights on one CPU thread, resumed or not: order and dropout are drawn from the seed and
    the epoch's number, so nothing of a random generator has to be carried over.

    Args:
        model: Takes int32 ids and gives logits; its :class:`RowTable` modules are updated by touched rows, everything
            else by dense Adam.
        train: Training rows.
        valid: Validation rows.
        options: How to train.
        seed: Seed of order and dropout.
        device: Where to train.
        hook: What a supernet adds to each step.
        evaluate: Gives the validation AUC of the model; a plain forward pass by default.
        keep: Which epoch's weights the training ends with: ``"best"``, those of the best validation AUC, or ``"last"``, for
            trainings that change the model on purpose, whose AUC may fall on the way.
        penalty: Gives what is added to the loss of the forward pass just done; nothing by default.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Split,
        valid: Split,
        options: TrainOptions,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        hook: StepHook | None = None,
        evaluate: Callable[[], float] | None = None,
        keep: str = "best",
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        if keep not in ("best", "last"):
            raise InputError(f"keep={keep!r} is not known: give 'best' or 'last'")
        self.keep = keep
        self.device = torch.device(device)
        self.model = model.to(self.device)
        for module in model.modules():
            if isinstance(module, FieldLayout):
                module.every_row = options.decay == "all"
        self.options = options
        self.seed = seed
        self.hook = hook
        self.penalty = penalty
        self.train_feed = Feed(train, self.device)
        self.valid = valid
        self.evaluate = evaluate or (lambda: auc(predict(self.model, valid, options.eval_batch_size), valid.labels))
        self.rows = ROW_OPTIMIZERS[options.tables](row_tables(model), lr=options.rows_lr, l2=options.l2)
        self.dense_names = dense_parameters(model)
        self.dense = torch.optim.Adam(self.dense_names.values(), lr=options.lr, fused=True)
        self.amp = takes_bfloat16(options, self.device)
        compile = options.compile and can_compile(self.device.type)
        if compile:
            self.rows.compile()
        self.compiled = CompiledBackbones(model, options.batch_size) if compile else contextlib.nullcontext
        self.whole: WholeTables | None = None
        plain = hook is None and penalty is None
        if compile and plain and isinstance(self.rows, RowAdam) and WholeTables.suits(model, options.batch_size):
            self.whole = WholeTables(model, self.rows, self.dense, options.batch_size, amp=self.amp)
        self.epoch = 0
        self.bad_epochs = 0
        self.best_auc = -np.inf
        self.best: dict[str, Tensor] = {}
        # Whether the weights are the best ones: they are copied when the next epoch begins, and not at all at the end.
        self.at_best = False
        self.history: list[Epoch] = []
        # Pieces that the rows of a step go through the model in, where memory does not suffice for all at once.
        self.parts = 1

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the training rows.

        A last row on its own joins the batch before it: it has no variance that batch norm could divide by.
        """
        rows, size = len(self.train_feed), self.options.batch_size
        return rows if size == 1 else max(1, -(-(rows - 1) // size))

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ended the training."""
        stopped = self.options.patience and self.bad_epochs >= self.options.patience
        return bool(stopped) or self.epoch >= self.options.epochs

    def run(self, *, on_epoch: OnEpoch | None = None, on_step: OnStep | None = None) -> list[Epoch]:
        """Trains to the end, and leaves the weights of the best validation AUC, or the last ones, in the model.

        Args:
            on_epoch: Called at every epoch's end with the epoch and a function that gives the state to resume from.
            on_step: Called after every step with the step's number, the number of steps, and rows per second.

        Returns:
            All epochs, those before a resume included.
        """
        keep_freed_memory()
        with deterministic(self.options.deterministic):
            self._run(on_epoch, on_step)
        if self.best and not self.at_best:
            self.model.load_state_dict(self.best)
        return self.history

    def _run(self, on_epoch: OnEpoch | None, on_step: OnStep | None) -> None:
        while not self.finished:
            started, worked = time.perf_counter(), work_seconds(self.device)
            loss = self._epoch(on_step)
            trained = time.perf_counter() - started
            score = float(self.evaluate())
            if self.hook is not None:
                score = self.hook.scored(score)
            self._after_epoch(score)
            seconds = work_seconds(self.device) - worked
            self.history.append(Epoch(self.epoch, loss, score, seconds, len(self.train_feed) / trained))
            if on_epoch is not None:
                on_epoch(self.history[-1], self.state)

    def _keep_best(self) -> None:
        """Copies the best weights before they change, into the place of those that were the best before."""
        if not self.at_best:
            return
        self.at_best = False
        for name, value in self.model.state_dict().items():
            if name in self.best:
                self.best[name].copy_(value)
            else:
                self.best[name] = value.detach().clone()

    def _epoch(self, on_step: OnStep | None) -> float:
        self._keep_best()
        self.model.train()
        steps, started = self.steps_per_epoch, time.perf_counter()
        total = torch.zeros((), device=self.device)
        whole = self.whole.on() if self.whole is not None and self.parts == 1 else contextlib.nullcontext()
        with whole, seeded(self.seed * 1_000_003 + self.epoch, self.device):
            order = torch.randperm(len(self.train_feed)).to(self.train_feed.ids.device)
            size = self.options.batch_size
            ends = [*range(size, steps * size, size), len(order)]
            indices = (order[start:end] for start, end in zip([0, *ends], ends, strict=False))
            for step, (ids, labels) in enumerate(self.train_feed.batches(indices)):
                total += self._step(self.epoch * steps + step, ids, labels) * len(ids)
                if on_step is not None:
                    rate = ends[step] / (time.perf_counter() - started)
                    on_step(self.epoch * steps + step + 1, self.options.epochs * steps, rate)
        self.epoch += 1
        loss = float(total) / len(order)
        if not math.isfinite(loss):
            raise InputError(f"training diverged in epoch {self.epoch}, its mean loss is {loss}: {DIVERGENCE_REMEDY}")
        return loss

    def _step(self, step: int, ids: Tensor, labels: Tensor) -> Tensor:
        steps = self.options.epochs * self.steps_per_epoch
        if self.options.schedule == "cosine":
            self._set_lr(self.options.lr * 0.5 * (1 + math.cos(math.pi * step / steps)))
        if self.whole is not None and self.parts == 1:
            return self.whole.step(ids, labels)
        if self.hook is not None:
            self.hook.before(step, steps)
        self.dense.zero_grad(set_to_none=True)
        total, touched = torch.zeros((), device=self.device), TouchedParts(self.rows.tables)
        parts = min(self.parts, len(ids))
        for part, part_labels in zip(ids.tensor_split(parts), labels.tensor_split(parts), strict=True):
            losses, share = self._losses(part, part_labels), len(part) / len(ids)
            # What is told of an epoch is the loss itself, which can be compared with that of other models.
            loss = losses.mean() * share
            (loss if self.penalty is None else loss + self.penalty() * share).backward()
            total += loss.detach()
            if self.parts > 1:
                touched.add()
        touched.put_back()
        if self.hook is not None:
            self.hook.after(step, losses.detach())
        self.dense.step()
        self.rows.step()
        return total

    def _losses(self, ids: Tensor, labels: Tensor) -> Tensor:
        with self.compiled(len(ids)):
            found = logits(self.model, ids, amp=self.amp)
        return F.binary_cross_entropy_with_logits(found, labels, reduction="none")

    def _after_epoch(self, score: float) -> None:
        if self.keep == "last":
            self.best_auc = score  # of the weights that are kept, as ever
            return
        if score > self.best_auc:
            self.best_auc, self.bad_epochs, self.at_best = score, 0, True
            return
        self.bad_epochs += 1
        if self.options.schedule == "plateau":
            self._set_lr(self.lr * self.options.lr_decay)

    @property
    def lr(self) -> float:
        """The learning rate of all but the tables, as the schedule has it now."""
        return float(self.dense.param_groups[0]["lr"])

    def _set_lr(self, lr: float) -> None:
        self.rows.lr = lr * (self.options.rows_lr / self.options.lr)
        for module in self.model.modules():
            if isinstance(module, SelfUpdating):
                module.scale_lr(lr / self.options.lr)
        for group in self.dense.param_groups:
            group["lr"] = lr

    def state(self) -> TrainState:
        """What :meth:`load` needs to go on from here as if nothing had happened.

        The tensors are the live ones, as tables may be too large for yet another copy: write them out, or copy them,
        before training goes on.
        """
        tensors = {f"model.{n}": t for n, t in self.model.state_dict().items()}
        if not self.at_best:
            tensors |= {f"best.{n}": t for n, t in self.best.items()}
        tensors |= {f"rows.{n}": t for n, t in self.rows.state()}
        for name, parameter in self.dense_names.items():
            tensors |= {f"dense.{name}.{key}": t for key, t in self.dense.state[parameter].items()}
        meta = {
            "epoch": self.epoch,
            "bad_epochs": self.bad_epochs,
            "best_auc": self.best_auc,
            "at_best": self.at_best,
            "lr": self.lr,
            "row_steps": self.rows.steps,
            "history": [vars(e) for e in self.history],
            "hook": self.hook.state() if self.hook is not None else None,
        }
        return TrainState(tensors, meta)

    def load(self, state: TrainState) -> None:
        """Goes back to a state that :meth:`state` gave, in this process or another."""
        meta = state.meta
        self.model.load_state_dict(_under(state.tensors, "model."))
        self.best = {n: t.to(self.device, copy=True) for n, t in _under(state.tensors, "best.").items()}
        self.rows.load(_under(state.tensors, "rows."), int(meta["row_steps"]))
        for name, parameter in self.dense_names.items():
            saved = _under(state.tensors, f"dense.{name}.")
            # Copies: the optimiser writes into them, and the state may be loaded a second time.
            self.dense.state[parameter] = {key: t.to(self.device, copy=True) for key, t in saved.items()}
        self.epoch, self.bad_epochs = int(meta["epoch"]), int(meta["bad_epochs"])
        self.best_auc = float(meta["best_auc"])
        self.at_best = bool(meta.get("at_best", False))  # earlier versions always wrote the best weights out
        self.history = [Epoch(**e) for e in meta["history"]]
        self._set_lr(float(meta["lr"]))
        if self.hook is not None:
            self.hook.load(meta["hook"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
