"""The limit: bare torch loops of a screenful, which know nothing but this benchmark's model.

One concatenated table that holds the first-order weight as one more column, ids with the fields' offsets added beforehand,
batches by slicing tensors. They differ in who updates the table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.memory import keep_freed_memory
from studies.bench.contestants.base import OnStep, Work


class Net(nn.Module):
    """The model above the table."""

    def __init__(self, work: Work, fields: int, *, amp: bool) -> None:
        super().__init__()
        widths = [fields * work.dim, *work.hidden]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(widths[-1], 1)
        self.dim, self.fm, self.amp = work.dim, work.backbone == "deepfm", amp

    def forward(self, rows: Tensor) -> Tensor:
        """Logits, from looked-up rows of shape ``(batch, fields, dim + 1 or more)``."""
        e = rows[:, :, : self.dim]
        x = e.flatten(1)
        for layer in self.layers:
            x = torch.relu(layer(x))
        logit = self.out(x).squeeze(1)
        if self.fm:
            logit = logit + rows[:, :, self.dim].sum(1) + 0.5 * (e.sum(1).square().sum(1) - e.square().sum((1, 2)))
        return logit

    def loss(self, rows: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            logits = self(rows).float()
        return F.binary_cross_entropy_with_logits(logits, labels)


class Bare(ABC):
    """What the loops share.

    Args:
        work: What to train.
        compiled: Whether ``torch.compile`` compiles all that it can.
        amp: Whether matrix products take bfloat16.
    """

    columns = 1  # after the embedding's own: the first-order weight

    def __init__(self, work: Work, *, compiled: bool, amp: bool = False) -> None:
        torch.manual_seed(work.seed)
        self.work, self.compiled = work, compiled
        offsets = work.offsets
        self.total = int(offsets[-1])
        self.ids = torch.from_numpy(work.dataset.train.ids + offsets[:-1]).to(torch.int32)
        self.labels = torch.from_numpy(work.dataset.train.labels.astype(np.float32))
        self.net = Net(work, self.ids.shape[1], amp=amp)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=work.lr, fused=True)
        extra = self.columns if work.backbone == "deepfm" else 0
        self.make_table(torch.randn(self.total, work.dim + extra).mul_(work.std))
        self.loss = torch.compile(self.net.loss, dynamic=False) if compiled else self.net.loss

    @abstractmethod
    def make_table(self, initial: Tensor) -> None:
        """Makes the table of its initial values, and its optimiser."""

    @abstractmethod
    def step(self, ids: Tensor, labels: Tensor) -> None:
        """Forward and backward pass, and the table's update."""

    def lookup(self, ids: Tensor) -> Tensor:
        """Rows of ids without a gradient."""
        return F.embedding(ids, self.table)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = self.work.batch_size
        while True:
            order = torch.randperm(len(self.ids))
            for start in range(0, len(order), size):
                index = order[start : start + size]
                yield self.ids.index_select(0, index), self.labels.index_select(0, index)

    def train(self, on_step: OnStep) -> None:
        keep_freed_memory()  # as we do
        for ids, labels in self.batches():
            self.step(ids, labels)
            self.adam.step()
            self.adam.zero_grad()
            on_step()

    @torch.no_grad()
    def predict(self) -> npt.NDArray[np.floating]:
        ids = torch.from_numpy(self.work.dataset.test.ids + self.work.offsets[:-1])
        return np.concatenate([torch.sigmoid(self.net(self.lookup(part))).numpy() for part in ids.split(16384)])


class Dense(Bare):
    """A dense gradient and torch's fused Adam over the whole table, as most code has it."""

    def make_table(self, initial: Tensor) -> None:
        self.table = nn.Parameter(initial)
        self.adam.add_param_group({"params": [self.table]})
        self.whole = self.of_ids
        if self.compiled:
            self.whole = torch.compile(self.of_ids, dynamic=False)

    def of_ids(self, ids: Tensor, labels: Tensor) -> Tensor:
        return self.net.loss(F.embedding(ids, self.table), labels)

    def step(self, ids: Tensor, labels: Tensor) -> None:
        self.whole(ids, labels).backward()


class Sparse(Bare):
    """Sparse gradients and torch's SparseAdam."""

    def make_table(self, initial: Tensor) -> None:
        self.table = nn.Parameter(initial)
        self.sparse = torch.optim.SparseAdam([self.table], lr=self.work.lr)

    def step(self, ids: Tensor, labels: Tensor) -> None:
        self.loss(F.embedding(ids, self.table, sparse=True), labels).backward()
        self.sparse.step()
        self.sparse.zero_grad()


class Rows(Bare):
    """Adam with a second moment per row, on the batch's distinct rows: what is least to do without native code."""

    def make_table(self, initial: Tensor) -> None:
        self.table = initial
        self.mean, self.square, self.steps = torch.zeros_like(initial), torch.zeros(len(initial)), 0

    def step(self, ids: Tensor, labels: Tensor) -> None:
        rows, inverse = torch.unique(ids, return_inverse=True)
        rows = rows.long()
        leaf = self.table.index_select(0, rows)
        values = F.embedding(inverse, leaf).requires_grad_(True)
        self.loss(values, labels).backward()
        assert values.grad is not None
        grad = torch.zeros_like(leaf).index_add_(0, inverse.view(-1), values.grad.view(-1, leaf.shape[1]))
        self.update(rows, leaf, grad)

    @torch.no_grad()
    def update(self, rows: Tensor, leaf: Tensor, grad: Tensor) -> None:
        self.steps += 1
        mean = self.mean.index_select(0, rows).lerp_(grad, 0.1)
        square = self.square.index_select(0, rows).lerp_(grad.square().mean(1), 0.001)
        root = square.div(1 - 0.999**self.steps).sqrt_().add_(1e-8)
        leaf.addcdiv_(mean, root.unsqueeze(1), value=-self.work.lr / (1 - 0.9**self.steps))
        self.table.index_copy_(0, rows, leaf)
        self.mean.index_copy_(0, rows, mean)
        self.square.index_copy_(0, rows, square)


class Fbgemm(Bare):
    """FBGEMM's table-batched embeddings with row-wise Adagrad, updated within the backward pass in native code."""

    columns = 4  # widths are multiples of 4 there
    lr = 0.02  # Adagrad's steps are shorter than Adam's

    def make_table(self, initial: Tensor) -> None:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(*initial.shape, EmbeddingLocation.HOST, ComputeDevice.CPU)],
            optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=self.lr,
            eps=1e-8,
        )
        self.table = self.tables.split_embedding_weights()[0]
        self.table.data.copy_(initial)
        self.offsets = torch.arange(self.work.batch_size * self.ids.shape[1] + 1)

    def step(self, ids: Tensor, labels: Tensor) -> None:
        rows = self.tables(ids.view(-1).long(), self.offsets[: ids.numel() + 1])
        self.loss(rows.view(*ids.shape, -1), labels).backward()
