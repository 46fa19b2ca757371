"""Embeddings whose weights all candidate sizes share: what makes one model hold every subnet.

Reconstruction: the AdaS&S paper's body could not be read. ``"separate"`` follows the AutoDim pattern (Zhao et al., 2021,
arXiv 2006.14827): a table per field and candidate, each mapped to D and batch-normalised. ``"prefix"`` keeps one table per
field and lets a candidate be its first columns, as in slimmable networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.embedding import first_order
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.rows import BatchRows, RowTable

Paths = npt.NDArray[np.int64]
"""Subnets as positions among the candidates, int64 of shape ``(paths, fields)``."""


class SharedEmbedding(nn.Module):
    """Base of the weight-sharing embeddings: what both ways of sharing have in common.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order; the last one is D.
        with_linear: Whether every value also has a first-order weight.
    """

    candidate_sizes: Tensor

    def __init__(self, schema: Schema, candidates: Sequence[int], *, with_linear: bool) -> None:
        super().__init__()
        self.layout = FieldLayout(schema)
        self.candidates = tuple(candidates)
        self.dim = candidates[-1]
        self.fields = len(schema.fields)
        self.linear = RowTable(self.layout.total_rows, 1, std=0.0) if with_linear else None
        self.register_buffer("candidate_sizes", torch.tensor(self.candidates), persistent=False)
        # What the last batch's embeddings were, with their gradient where a sampler of paths wants to see it.
        self.output: Tensor | None = None
        self.keep_gradient = False
        self.set_paths(np.full((1, self.fields), len(candidates) - 1))

    def set_paths(self, paths: Paths, update: npt.NDArray[np.bool_] | None = None) -> None:
        """Chooses the subnets of the next forward passes.

        Args:
            paths: Candidate positions, shape ``(paths, fields)``; a batch is cut into as many equal pieces.
            update: Which fields' tables the optimiser may change, shape ``(fields,)``; all by default.
        """
        device = self.candidate_sizes.device
        self.paths = torch.from_numpy(np.ascontiguousarray(paths, dtype=np.int64)).to(device)
        self.update = None if update is None else torch.from_numpy(update).to(device)

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Embeddings of a batch under the chosen paths.

        Args:
            ids: int32, shape ``(batch, columns)``.

        Returns:
            One group of shape ``(batch, fields, D)``, and the first-order sum, shape ``(batch,)``, or None.
        """
        rows = self.layout.rows(ids)
        batch = self.layout.batch_rows(rows)
        return [self.embed(ids, rows, batch)], first_order(self.linear, self.layout, ids, rows, batch)

    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """Embeddings of shape ``(batch, fields, D)`` under the chosen paths."""
        raise NotImplementedError

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """Embeddings of a block of rows from which :meth:`select` takes any subnet's."""
        raise NotImplementedError

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """One subnet's groups, and the columns of the full-width input that they fill."""
        raise NotImplementedError

    def first_order(self, ids: Tensor) -> Tensor | None:
        """Sum of first-order weights without a gradient, shape ``(batch,)``."""
        return first_order(self.linear, self.layout, ids, self.layout.rows(ids), None)

    def piece_of(self, rows: int) -> Tensor:
        """Which path each row of a batch is on, int64 of shape ``(rows,)``."""
        return torch.arange(rows, device=self.paths.device) * len(self.paths) // rows

    def present(self, rows: int) -> Tensor:
        """Which fields each row of a batch has under the chosen paths, bool of shape ``(rows, fields)``."""
        return (self.candidate_sizes[self.paths] > 0)[self.piece_of(rows)]

    def _watch(self, output: Tensor) -> Tensor:
        if self.keep_gradient and output.requires_grad:
            output.retain_grad()
            self.output = output
        return output

    def _field_of(self, rows: Tensor) -> Tensor:
        return torch.searchsorted(self.layout.field_start, rows, right=True) - 1

    def _groups(self, path: npt.NDArray[np.int64], device: torch.device) -> list[tuple[int, Tensor]]:
        kept = [k for k in np.unique(path).tolist() if self.candidates[k] > 0]
        return [(k, torch.from_numpy(np.flatnonzero(path == k)).to(device)) for k in kept]


class PrefixEmbedding(SharedEmbedding):
    """One table of width D per field; candidate d is its first d columns, the others count as zeros.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order.
        with_linear: Whether every value also has a first-order weight.
        std: Standard deviation of the initial values.
    """

    def __init__(self, schema: Schema, candidates: Sequence[int], *, with_linear: bool, std: float) -> None:
        super().__init__(schema, candidates, with_linear=with_linear)
        self.table = RowTable(self.layout.total_rows, self.dim, std=std, zero_rows=self.layout.oov_rows)

    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """See :meth:`SharedEmbedding.embed`."""
        if batch is None:
            values = self.table.lookup(rows)
        else:
            leaf = self.table.gather(batch.rows, self._widths(batch.rows))
            values = F.embedding(batch.inverse, leaf)
        # Watched before the mask: columns that a path leaves out have no gradient then.
        pooled = self._watch(self.layout.pool(values, ids))
        sizes = self.candidate_sizes[self.paths]  # (paths, fields)
        mask = (torch.arange(self.dim, device=ids.device) < sizes.unsqueeze(2)).to(pooled.dtype)
        if len(mask) == 1:
            return pooled * mask
        return pooled * mask[self.piece_of(len(ids))]

    def _widths(self, rows: Tensor) -> Tensor:
        widths = self.candidate_sizes[self.paths.amax(0)]
        if self.update is not None:
            widths = widths * self.update
        return widths[self._field_of(rows)]

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """See :meth:`SharedEmbedding.bank`."""
        return [self.layout.pool(self.table.lookup(self.layout.rows(ids)), ids)]

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """See :meth:`SharedEmbedding.select`."""
        (full,) = bank
        groups, columns = [full[:, :0, :0]], [torch.zeros(0, dtype=torch.int64, device=full.device)]
        for k, fields in self._groups(path, full.device):
            size = self.candidates[k]
            groups.append(full[:, fields, :size])
            columns.append((fields[:, None] * self.dim + torch.arange(size, device=full.device)).reshape(-1))
        return groups, torch.cat(columns)


class SeparateEmbedding(SharedEmbedding):
    """A table per field and candidate, each with a linear map to D, a non-affine batch norm and a gain.

    A batch norm here sees one field at one candidate only, so its running statistics serve every subnet. The gain, one
    number per field and candidate that starts at ``std``, is ours: without it every field enters the backbone at unit
    variance, noise fields too, and the inner products of DeepFM start two orders of magnitude too large and stay there.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order.
        with_linear: Whether every value also has a first-order weight.
        std: Standard deviation of the initial values.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, schema: Schema, candidates: Sequence[int], *, with_linear: bool, std: float) -> None:
        super().__init__(schema, candidates, with_linear=with_linear)
        self.tables = nn.ModuleDict()
        self.maps = nn.ParameterDict()
        for k, size in enumerate(self.candidates):
            if size > 0:
                table = RowTable(self.layout.total_rows, size, std=std, zero_rows=self.layout.oov_rows)
                self.tables[str(k)] = table
                self.maps[str(k)] = nn.Parameter(torch.randn(self.fields, size, self.dim) * size**-0.5)
        shape = (len(self.candidates), self.fields, self.dim)
        self.gain = nn.Parameter(torch.full(shape[:2], std))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """See :meth:`SharedEmbedding.embed`."""
        if len(self.paths) != 1:
            raise InputError("sharing='separate' trains one path a step: set paths=1")
        path = self.paths[0].cpu().numpy()
        out = torch.zeros(len(ids), self.fields, self.dim, device=ids.device)
        for k, fields in self._groups(path, ids.device):
            chosen = fields.tolist()
            columns = self.layout.columns_of(chosen)
            if batch is None:
                values = self._table(k).lookup(rows[:, columns])
            else:
                values = self._gather(k, fields, batch, columns)
            out = out.index_copy(1, fields, self._align(k, fields, self.layout.pool(values, ids, chosen)))
        return self._watch(out)

    def _table(self, k: int) -> RowTable:
        table = self.tables[str(k)]
        assert isinstance(table, RowTable)
        return table

    def _gather(self, k: int, fields: Tensor, batch: BatchRows, columns: list[int]) -> Tensor:
        field_of = self._field_of(batch.rows)
        mine = torch.isin(field_of, fields)
        rows = batch.rows[mine]
        widths = None
        if self.update is not None:
            widths = self.update[field_of[mine]] * self.candidates[k]
        position = mine.cumsum(0) - 1
        return F.embedding(position[batch.inverse[:, columns]], self._table(k).gather(rows, widths))

    def _align(self, k: int, fields: Tensor, values: Tensor) -> Tensor:
        mapped = torch.einsum("bfd,fde->bfe", values, self.maps[str(k)][fields]).flatten(1)
        mean = self.running_mean[k, fields].reshape(-1)
        var = self.running_var[k, fields].reshape(-1)
        normed = F.batch_norm(mapped, mean, var, training=self.training)
        if self.training:
            self.running_mean[k, fields] = mean.view(len(fields), -1)
            self.running_var[k, fields] = var.view(len(fields), -1)
        return normed.view(len(values), len(fields), self.dim) * self.gain[k, fields].unsqueeze(1)

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """See :meth:`SharedEmbedding.bank`."""
        rows = self.layout.rows(ids)
        fields = torch.arange(self.fields, device=ids.device)
        return [
            self._align(k, fields, self.layout.pool(self._table(k).lookup(rows), ids)) if size > 0 else rows[:, :0]
            for k, size in enumerate(self.candidates)
        ]

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """See :meth:`SharedEmbedding.select`."""
        device = bank[-1].device
        groups, columns = [bank[-1][:, :0]], [torch.zeros(0, dtype=torch.int64, device=device)]
        for k, fields in self._groups(path, device):
            groups.append(bank[k][:, fields])
            columns.append((fields[:, None] * self.dim + torch.arange(self.dim, device=device)).reshape(-1))
        return groups, torch.cat(columns)
