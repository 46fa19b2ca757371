"""The embedding of methods that prune columns: one full-width table per field, a gate on every column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema
from optuna_aes.models.backbones.group import Columns
from optuna_aes.models.rows import BatchRows
from optuna_aes.models.sharing import Paths, PrefixEmbedding


class MaskedEmbedding(PrefixEmbedding):
    """One table of width D per field; a size d is its d most important columns, where they stand.

    Where a partition divides the fields' values into blocks, gates, importance and sizes are those of blocks.

    In training every column passes through its gate, 1 at first: a strategy sets gates, or asks for their gradient by
    ``gate.requires_grad_()``, which after a backward pass is Σ_batch ∂L/∂ẽ_fk · e_fk, of closed gates too.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order; the last one is D.
        with_linear: Whether every value also has a first-order weight.
        std: Standard deviation of the initial values.
        partition: Which block every row of every field belongs to; a block per field by default.
    """

    gate: Tensor
    importance: Tensor

    def __init__(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        with_linear: bool,
        std: float,
        partition: Partition | None = None,
    ) -> None:
        super().__init__(schema, candidates, with_linear=with_linear, std=std, partition=partition)
        self.register_buffer("gate", torch.ones(self.blocks, self.dim))
        # What decides which columns a size keeps, float32 of shape (blocks, D); the first columns until it is set.
        self.register_buffer("importance", torch.arange(self.dim, 0, -1.0).repeat(self.blocks, 1))

    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """See :meth:`SharedEmbedding.embed`; the gates take the place of paths."""
        if batch is None:
            values = self.table.lookup(rows)
        else:
            values = batch.lookup(self.table.gather(batch.rows))
        if self.index is not None:  # the values of a bag may be in several blocks
            return self.layout.pool(values * self.gate[self.index(rows)], ids)
        return self.layout.pool(values, ids) * self.gate

    def present(self, rows: int) -> Tensor:
        """See :meth:`SharedEmbedding.present`: a field is there while one of its gates is open."""
        return self.of_fields((self.gate != 0).any(1)).expand(rows, -1)

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """See :meth:`SharedEmbedding.bank`."""
        rows = self.layout.rows(ids)
        values = self.table.lookup(rows)
        if self.index is not None:
            blocks = self.index(rows)
            return [values * self.gate.detach()[blocks], blocks, ids]
        return [self.layout.pool(values, ids) * self.gate.detach()]

    def columns(self, paths: Paths) -> Columns:
        """See :meth:`SharedEmbedding.columns`."""
        sizes = self.candidate_sizes[torch.from_numpy(np.ascontiguousarray(paths)).to(self.candidate_sizes.device)]
        used = torch.stack([self.kept(row) for row in sizes]).flatten(1).cpu().numpy()
        return Columns(used, np.arange(self.fields * self.dim), self.fields, self.dim)

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """See :meth:`SharedEmbedding.select`. Columns stay where they are, so the groups have full width."""
        full, *where = bank
        sizes = self.candidate_sizes[torch.from_numpy(np.asarray(path, dtype=np.int64)).to(full.device)]
        kept = self.kept(sizes)
        fields = torch.nonzero(self.of_fields(sizes > 0)).squeeze(1)
        columns = fields.unsqueeze(1) * self.dim + torch.arange(self.dim, device=full.device)
        if where:
            blocks, ids = where
            return [self.layout.pool(full * kept[blocks], ids)[:, fields]], columns.reshape(-1)
        return [full[:, fields] * kept[fields]], columns.reshape(-1)

    def columns_kept(self, sizes: Iterable[int]) -> Tensor:
        """See :meth:`SharedEmbedding.columns_kept`: the most important ones."""
        return self.kept(torch.tensor(list(sizes), device=self.importance.device)).cpu()

    def kept(self, sizes: Tensor) -> Tensor:
        """Which columns the sizes keep, bool of shape ``(blocks, D)``: of equally important ones the first."""
        rank = self.importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return rank < sizes.unsqueeze(1)
