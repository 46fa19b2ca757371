"""Embeddings whose weights all candidate sizes share: what makes one model hold every subnet.

Reconstruction: the AdaS&S paper's body could not be read. ``"separate"`` follows the AutoDim pattern (Zhao et al., 2021,
arXiv 2006.14827): a table per field and candidate, each mapped to D and batch-normalised. ``"prefix"`` keeps one table per
field and lets a candidate be its first columns, as in slimmable networks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.group import Columns
from optuna_aes.models.blocks import PieceIndex
from optuna_aes.models.embedding import first_order
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.rows import BatchRows, RowTable

Paths = npt.NDArray[np.int64]
"""Subnets as positions among the candidates, int64 of shape ``(paths, blocks)``; a block is a field, or a part of one."""


class SharedEmbedding(nn.Module, ABC):
    """Base of the weight-sharing embeddings: what both ways of sharing have in common.

    Args:
        schema: The dataset's fields.
        candidates: Sizes in ascending order; the last one is D.
        with_linear: Whether every value also has a first-order weight.
        partition: Which block every row of every field belongs to; a block per field by default.
    """

    candidate_sizes: Tensor
    field_blocks: Tensor

    def __init__(
        self, schema: Schema, candidates: Sequence[int], *, with_linear: bool, partition: Partition | None = None
    ) -> None:
        super().__init__()
        self.layout = FieldLayout(schema)
        self.candidates = tuple(candidates)
        self.dim = candidates[-1]
        self.fields = len(schema.fields)
        self.index = None if partition is None else PieceIndex(partition, self.layout)
        self.blocks = self.fields if partition is None else len(partition.names)
        # Which blocks a field has rows in, bool of shape (fields, blocks).
        mine = torch.eye(self.fields, dtype=torch.bool)
        if partition is not None:
            mine = torch.zeros(self.fields, self.blocks, dtype=torch.bool)
            for field, _, _, block in partition.pieces:
                mine[field, block] = True
        self.register_buffer("field_blocks", mine, persistent=False)
        self.linear = RowTable(self.layout.total_rows, 1, std=0.0) if with_linear else None
        self.register_buffer("candidate_sizes", torch.tensor(self.candidates), persistent=False)
        # What the last batch's embeddings were, with their gradient where a sampler of paths wants to see it.
        self.output: Tensor | None = None
        self.output_blocks: Tensor | None = None
        self.keep_gradient = False
        self.set_paths(np.full((1, self.blocks), len(candidates) - 1))

    def set_paths(self, paths: Paths, update: npt.NDArray[np.bool_] | None = None) -> None:
        """Chooses the subnets of the next forward passes.

        Args:
            paths: Candidate positions, shape ``(paths, blocks)``; a batch is cut into as many equal pieces.
            update: Which blocks' tables the optimiser may change, shape ``(blocks,)``; all by default.
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

    @abstractmethod
    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """Embeddings of shape ``(batch, fields, D)`` under the chosen paths."""

    @abstractmethod
    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """Embeddings of a block of rows from which :meth:`select` takes any subnet's."""

    @abstractmethod
    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """One subnet's groups, and the columns of the full-width input that they fill."""

    @property
    def flat(self) -> bool:
        """Whether a subnet is a choice among the columns of a bank: where fields have several blocks, rows differ in it."""
        return self.index is None

    @abstractmethod
    def columns(self, paths: Paths) -> Columns:
        """Which columns of a bank, its tensors side by side, each subnet uses.

        Args:
            paths: Candidate positions, shape ``(subnets, fields)``.
        """

    def columns_kept(self, sizes: Iterable[int]) -> Tensor:
        """Which columns of a full-width table blocks of such sizes keep, bool of shape ``(blocks, D)``.

        Raises:
            InputError: If there is no such table.
        """
        raise InputError(f"{type(self).__name__} has a table for every size, and no columns that a size keeps")

    def first_order(self, ids: Tensor) -> Tensor | None:
        """Sum of first-order weights without a gradient, shape ``(batch,)``."""
        return first_order(self.linear, self.layout, ids, self.layout.rows(ids), None)

    def piece_of(self, rows: int) -> Tensor:
        """Which path each row of a batch is on, int64 of shape ``(rows,)``."""
        return torch.arange(rows, device=self.paths.device) * len(self.paths) // rows

    def present(self, rows: int) -> Tensor:
        """Which fields each row of a batch has under the chosen paths, bool of shape ``(rows, fields)``."""
        return self.of_fields(self.candidate_sizes[self.paths] > 0)[self.piece_of(rows)]

    @property
    def block_rows(self) -> list[int]:
        """Rows of every block."""
        if self.index is not None:
            rows: list[int] = self.index.block_rows.tolist()
            return rows
        return self.layout.field_rows

    def of_fields(self, blocks: Tensor) -> Tensor:
        """Which fields have one of the blocks, bool of shape ``(..., fields)`` for one of shape ``(..., blocks)``."""
        return (blocks.unsqueeze(-2) & self.field_blocks).any(-1)

    def by_block(self, values: Tensor) -> Tensor:
        """Sums over the blocks of what :attr:`output` was watched for, shape ``(batch, blocks)``.

        Args:
            values: A number for each of its embeddings, shape ``(batch, fields)``, or ``(batch, columns)`` under a
                partition.
        """
        if self.output_blocks is None:
            return values
        return values.new_zeros(len(values), self.blocks).scatter_add_(1, self.output_blocks, values)

    def block_of(self, rows: Tensor) -> Tensor:
        """int64 numbers of the blocks of table rows, same shape."""
        if self.index is not None:
            found: Tensor = self.index(rows)
            return found
        return torch.searchsorted(self.layout.field_start, rows, right=True) - 1

    def _watch(self, output: Tensor, blocks: Tensor | None = None) -> Tensor:
        if self.keep_gradient and output.requires_grad:
            output.retain_grad()
            self.output, self.output_blocks = output, blocks
        return output

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
        partition: Which block every row of every field belongs to; a block per field by default.
    """

    def __init__(
        self,
        schema: Schema,
        candidates: Sequence[int],
        *,
        with_linear: bool,
        std: float,
        partition: Partition | None = None,
    ) -> None:
        super().__init__(schema, candidates, with_linear=with_linear, partition=partition)
        self.table = RowTable(self.layout.total_rows, self.dim, std=std, zero_rows=self.layout.oov_rows)

    def embed(self, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """See :meth:`SharedEmbedding.embed`."""
        if batch is None:
            values = self.table.lookup(rows)
        else:
            leaf = self.table.gather(batch.rows, self._widths(batch.rows))
            values = batch.lookup(leaf)
        if self.index is not None:  # the values of a bag may be in several blocks: masked before they are pooled
            blocks = self.index(rows)
            sizes = self.candidate_sizes[self.paths[self.piece_of(len(ids)).unsqueeze(1), blocks]]
            mask = torch.arange(self.dim, device=ids.device) < sizes.unsqueeze(2)
            return self.layout.pool(self._watch(values, blocks) * mask, ids)
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
        return widths[self.block_of(rows)]

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """See :meth:`SharedEmbedding.bank`."""
        rows = self.layout.rows(ids)
        values = self.table.lookup(rows)
        if self.index is not None:
            return [values, self.index(rows), ids]
        return [self.layout.pool(values, ids)]

    def columns(self, paths: Paths) -> Columns:
        """See :meth:`SharedEmbedding.columns`."""
        sizes = np.array(self.candidates)[paths]
        used = np.arange(self.dim) < sizes[:, :, np.newaxis]
        return Columns(used.reshape(len(paths), -1), np.arange(self.fields * self.dim), self.fields, self.dim)

    def columns_kept(self, sizes: Iterable[int]) -> Tensor:
        """See :meth:`SharedEmbedding.columns_kept`: the first ones."""
        return torch.arange(self.dim) < torch.tensor(list(sizes)).unsqueeze(1)

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """See :meth:`SharedEmbedding.select`; a field is as wide as its widest block."""
        full, *where = bank
        sizes = self.candidate_sizes[torch.from_numpy(np.asarray(path, dtype=np.int64)).to(full.device)]
        widest = (self.field_blocks * sizes).amax(1).cpu().numpy()
        groups, columns = [full[:, :0, :0]], [torch.zeros(0, dtype=torch.int64, device=full.device)]
        for size in np.unique(widest[widest > 0]).tolist():
            chosen = np.flatnonzero(widest == size).tolist()
            fields, within = torch.tensor(chosen, device=full.device), torch.arange(size, device=full.device)
            if where:
                blocks, ids = where
                at = self.layout.columns_of(chosen)
                masked = full[:, at, :size] * (within < sizes[blocks[:, at]].unsqueeze(2))
                groups.append(self.layout.pool(masked, ids, chosen))
            else:
                groups.append(_fields_of(full[:, :, :size], chosen))
            columns.append((fields[:, None] * self.dim + within).reshape(-1))
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
        # Field by field, as slices put side by side take a quarter of the time of ``index_copy_``.
        found: dict[int, Tensor] = {}
        for k, fields in self._groups(self.paths[0].cpu().numpy(), ids.device):
            chosen = fields.tolist()
            columns = self.layout.columns_of(chosen)
            if batch is None:
                values = self._table(k).lookup(rows[:, columns])
            else:
                values = self._gather(k, fields, batch, rows, columns)
            aligned = self._align(k, fields, self.layout.pool(values, ids, chosen))
            found |= zip(chosen, aligned.unbind(1), strict=True)
        dropped = torch.zeros(len(ids), self.dim, device=ids.device)
        return self._watch(torch.stack([found.get(field, dropped) for field in range(self.fields)], dim=1))

    def _table(self, k: int) -> RowTable:
        table = self.tables[str(k)]
        assert isinstance(table, RowTable)
        return table

    def _gather(self, k: int, fields: Tensor, batch: BatchRows, rows: Tensor, columns: list[int]) -> Tensor:
        if not self.layout.every_row and self.update is None:
            part = BatchRows.of(rows[:, columns], self.layout.total_rows)
            return part.lookup(self._table(k).gather(part.rows))
        field_of = self.block_of(batch.rows)
        mine = torch.isin(field_of, fields)
        touched = batch.rows[mine]
        widths = None
        if self.update is not None:
            widths = self.update[field_of[mine]] * self.candidates[k]
        position = mine.cumsum(0) - 1
        return F.embedding(position[batch.inverse[:, columns]], self._table(k).gather(touched, widths))

    def _align(self, k: int, fields: Tensor, values: Tensor) -> Tensor:
        mapped = torch.einsum("bfd,fde->bfe", values, self.maps[str(k)][fields]).flatten(1)
        mean = self.running_mean[k, fields].reshape(-1)
        var = self.running_var[k, fields].reshape(-1)
        gain = self.gain[k, fields].repeat_interleave(self.dim)
        normed = F.batch_norm(mapped, mean, var, gain, training=self.training)
        if self.training:
            self.running_mean[k, fields] = mean.view(len(fields), -1)
            self.running_var[k, fields] = var.view(len(fields), -1)
        return normed.view(len(values), len(fields), self.dim)

    def bank(self, ids: Tensor) -> Sequence[Tensor]:
        """See :meth:`SharedEmbedding.bank`."""
        rows = self.layout.rows(ids)
        fields = torch.arange(self.fields, device=ids.device)
        return [
            self._align(k, fields, self.layout.pool(self._table(k).lookup(rows), ids)) if size > 0 else rows[:, :0]
            for k, size in enumerate(self.candidates)
        ]

    def columns(self, paths: Paths) -> Columns:
        """See :meth:`SharedEmbedding.columns`: a bank holds every table's output, mapped to the common width."""
        held = np.flatnonzero(self.candidates)
        used = np.repeat(paths[:, np.newaxis, :] == held[:, np.newaxis], self.dim, axis=2)
        inputs = np.tile(np.arange(self.fields * self.dim), len(held))
        return Columns(used.reshape(len(paths), -1), inputs, self.fields, self.dim)

    def select(self, bank: Sequence[Tensor], path: npt.NDArray[np.int64]) -> tuple[list[Tensor], Tensor]:
        """See :meth:`SharedEmbedding.select`."""
        device = bank[-1].device
        groups, columns = [bank[-1][:, :0]], [torch.zeros(0, dtype=torch.int64, device=device)]
        for k, fields in self._groups(path, device):
            groups.append(_fields_of(bank[k], fields.tolist()))
            columns.append((fields[:, None] * self.dim + torch.arange(self.dim, device=device)).reshape(-1))
        return groups, torch.cat(columns)


def _fields_of(values: Tensor, fields: Sequence[int]) -> Tensor:
    """Some fields of a bank, shape ``(rows, fields, width)``: slices side by side, a fifth of the time of an index's."""
    return torch.stack([values[:, field] for field in fields], dim=1)
