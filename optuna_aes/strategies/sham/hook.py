"""What SHAM adds to each training step: the regulariser, the mask step, and the sizes it passes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from optuna_aes.models.step_hook import StepHook
from optuna_aes.models.supernet import Supernet
from optuna_aes.strategies.pruning.base import field_rows, gates
from optuna_aes.strategies.pruning.gradients import Batches, gate_gradient
from optuna_aes.strategies.sham.masks import Floats, mask_step
from optuna_aes.strategies.sham.orthogonal import orthogonality_gradient

if TYPE_CHECKING:
    from optuna_aes.strategies.sham.strategy import SHAM


class Record(nn.Module):
    """What a fit comes to, as buffers, so that it is stored and resumed with the weights.

    Args:
        fields: Fields of the data.
        dim: D.
        marks: Memory levels at which sizes are recorded.
        start: The auxiliary variables' first value.
    """

    auxiliary: Tensor
    scale: Tensor
    price: Tensor
    opened: Tensor
    sizes: Tensor

    def __init__(self, fields: int, dim: int, *, marks: int, start: float) -> None:
        super().__init__()
        self.register_buffer("auxiliary", torch.full((fields, dim), start, dtype=torch.float64))
        # Decayed mean of the gradients' sizes, and of ones, which it is divided by.
        self.register_buffer("scale", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("price", torch.zeros((), dtype=torch.float64))
        # Mask steps that every column was open.
        self.register_buffer("opened", torch.zeros(fields, dim, dtype=torch.float64))
        # Sizes at every level passed; −1 where a step passed several levels at once, or none yet.
        self.register_buffer("sizes", torch.full((marks, fields), -1, dtype=torch.int64))

    def passed(self) -> Tensor:
        """The sizes recorded, in order, int64 of shape ``(recorded, fields)``."""
        return self.sizes[(self.sizes >= 0).all(1)]


def record_of(supernet: Supernet) -> Record:
    """The record that :meth:`SHAM.supernet` gave the supernet."""
    record = supernet.get_submodule("record")
    assert isinstance(record, Record)
    return record


def ranks(record: Record, bound: float) -> Tensor:
    """What columns are worth: how long they were open, and between equals their auxiliary variable, in (−½, ½)."""
    return (record.opened + record.auxiliary / (2.1 * bound)).float()


class MaskHook(StepHook):
    """Warm-up with open masks, then mask steps under a falling limit, then training of the sizes that were passed.

    Args:
        supernet: A masked supernet with a :class:`Record`.
        batches: Validation batches.
        options: The strategy.
        seed: Seed of the last phase's draws.
    """

    # Of the running mean of the gradients' sizes.
    DECAY = 0.99

    def __init__(self, supernet: Supernet, batches: Batches, options: SHAM, *, seed: int) -> None:
        self.supernet = supernet
        self.batches = batches
        self.options = options
        self.seed = seed
        self.record = record_of(supernet)
        self.rows = field_rows(gates(supernet)).cpu().numpy().astype(np.float64)
        self.full = float(self.rows.sum()) * gates(supernet).dim
        self.limit = self.full
        self.searches = False

    def before(self, step: int, steps: int) -> None:
        """Sets the step's masks; see :class:`optuna_aes.models.step_hook.StepHook`."""
        first, last = self.phases(steps)
        self.searches = first <= step < last
        if step >= last:
            self._rehearse(step, begins=step == last)
        elif self.searches:
            self.limit = self.full * self.options.target ** ((step + 1 - first) / (last - first))
            if self.options.batch == "valid":
                self._search(gate_gradient(self.supernet, *self.batches(step)))
            else:
                gates(self.supernet).gate.requires_grad_()

    def after(self, step: int, losses: Tensor) -> None:
        """Adds the regulariser's gradient, and takes the mask step where it is taken on the training batch."""
        embedding = gates(self.supernet)
        if self.options.orthogonal > 0:
            self._regularise()
        gradient = embedding.gate.grad
        if gradient is not None:
            embedding.gate.grad = None
            embedding.gate.requires_grad_(False)
            self._search(gradient)

    def phases(self, steps: int) -> tuple[int, int]:
        """The first step of the search, and the first one after it."""
        first = int(self.options.warmup * steps)
        return first, max(first + 1, int((self.options.warmup + self.options.search) * steps))

    @torch.no_grad()
    def _search(self, gradient: Tensor) -> None:
        """One mask step, and the levels that it passes."""
        record, options = self.record, self.options
        # In units of its own running mean size: the loss has a scale of its own on every dataset, and rates should not.
        seen = torch.stack([gradient.abs().mean().double(), torch.ones((), device=gradient.device).double()])
        record.scale.lerp_(seen, 1 - self.DECAY)
        scaled = _numpy(gradient) / max(float(record.scale[0] / record.scale[1]), 1e-30)
        moved, price = mask_step(
            _numpy(record.auxiliary),
            scaled,
            self.rows,
            self.limit,
            rate=options.rate,
            bound=options.bound,
            surrogate=options.surrogate,
        )
        record.auxiliary.copy_(torch.from_numpy(moved))
        record.price.fill_(price)
        is_open = record.auxiliary > 0
        record.opened += is_open
        gates(self.supernet).gate.copy_(is_open)
        sizes = is_open.sum(1)
        left = float(self.rows @ sizes.cpu().numpy())
        passed = min(mark(left / self.full, options.target, len(record.sizes)), len(record.sizes))
        if passed > 0 and bool((record.sizes[passed - 1 :] < 0).all()):
            record.sizes[passed - 1] = sizes

    @torch.no_grad()
    def _rehearse(self, step: int, *, begins: bool) -> None:
        """Opens the columns of one of the sizes that were passed, or, every so often, all of them."""
        embedding, record = gates(self.supernet), self.record
        if begins:
            embedding.importance.copy_(ranks(record, self.options.bound))
        passed = record.passed()
        at = int(np.random.default_rng((self.seed, step, 8)).integers(-1, len(passed)))
        embedding.gate.copy_(embedding.kept(passed[at]) if at >= 0 else torch.ones_like(embedding.gate))

    @torch.no_grad()
    def _regularise(self) -> None:
        """Adds λ_o times the regulariser's gradient, over the batch's rows of every field and its open columns."""
        embedding = gates(self.supernet)
        touched = embedding.table.touched
        if touched is None or touched.leaf.grad is None:
            return
        starts = torch.cat([embedding.layout.field_start, embedding.layout.field_start.new_tensor([self.rows.sum()])])
        bounds = torch.searchsorted(touched.rows, starts).tolist()
        open_columns = (embedding.gate != 0).to(touched.leaf.dtype)
        for field, (low, high) in enumerate(itertools.pairwise(bounds)):
            # Closed columns stay as they were closed: they are to come back as such.
            table = touched.leaf[low:high] * open_columns[field]
            touched.leaf.grad[low:high] += self.options.orthogonal * orthogonality_gradient(table)


def mark(share: float, target: float, marks: int) -> int:
    """How many of the levels target^(1/marks), target^(2/marks), …, target a share of the memory has passed."""
    if share <= 0:
        return marks
    return max(0, int(np.floor(marks * np.log(share) / np.log(target) + 1e-9)))


def _numpy(values: Tensor) -> Floats:
    return values.detach().cpu().numpy().astype(np.float64)
