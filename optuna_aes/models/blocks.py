"""The right-sized embedding where a field's values are in several blocks, each with a size of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.data.blocks import Partition
from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.embedding import first_order
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.rows import BatchRows, RowTable


class PieceIndex(nn.Module):
    """Finds the piece of a partition that a row of the concatenated fields lies in, and its block.

    Args:
        partition: Which block every row of every field belongs to.
        layout: Where the fields lie, in the schema's order.
    """

    start: Tensor
    block: Tensor
    block_rows: Tensor

    def __init__(self, partition: Partition, layout: FieldLayout) -> None:
        super().__init__()
        self.names = partition.names
        self.pieces = partition.pieces
        starts = layout.field_start.tolist()
        self.register_buffer("start", torch.tensor([starts[f] + a for f, a, _, _ in self.pieces]), persistent=False)
        self.register_buffer("block", torch.tensor([k for *_, k in self.pieces]), persistent=False)
        self.register_buffer("block_rows", torch.tensor(list(partition.rows.values())), persistent=False)

    def piece_of(self, rows: Tensor) -> Tensor:
        """int64 numbers of the pieces of rows, same shape."""
        return torch.searchsorted(self.start, rows.long(), right=True) - 1

    def forward(self, rows: Tensor) -> Tensor:
        """int64 numbers of the blocks of rows, same shape."""
        return self.block[self.piece_of(rows)]


class BlockEmbedding(nn.Module):
    """Embeddings of mixed sizes within fields: a field is as wide as its widest block, the others are padded with zeros.

    Blocks of one size share a table, as fields do in :class:`optuna_aes.models.embedding.MixedEmbedding`.

    Args:
        schema: The dataset's fields.
        partition: Which block every row of every field belongs to.
        sizes: Size of every block by name.
        with_linear: Whether every value also has a first-order weight.
        std: Standard deviation of the initial values.

    Raises:
        InputError: If a block has no size, or one that no table can have.
    """

    shift: Tensor

    def __init__(
        self, schema: Schema, partition: Partition, sizes: Mapping[str, int], *, with_linear: bool, std: float
    ) -> None:
        super().__init__()
        missing = [name for name in partition.names if sizes.get(name, -1) < 0]
        if missing:
            raise InputError(f"sizes has no size of 0 or more for block {missing[0]!r}")
        self.layout = FieldLayout(schema)
        self.index = PieceIndex(partition, self.layout)
        pieces, size = partition.pieces, [sizes[partition.names[k]] for *_, k in partition.pieces]
        # Pieces of one size lie next to each other, those of size 0 first.
        shift, at, zero = [0] * len(pieces), 0, []
        self.spans: dict[int, tuple[int, int]] = {}
        for p in sorted(range(len(pieces)), key=lambda p: (size[p], p)):
            _, start, stop, _ = pieces[p]
            shift[p] = at - int(self.index.start[p])
            zero += [at] if start == 0 else []
            self.spans[size[p]] = (self.spans.get(size[p], (at, at))[0], at + stop - start)
            at += stop - start
        self.spans.pop(0, None)
        self.register_buffer("shift", torch.tensor(shift), persistent=False)
        self.tables = nn.ModuleDict()
        for d, (low, high) in self.spans.items():
            oov = [row - low for row in zero if low <= row < high]
            self.tables[str(d)] = RowTable(high - low, d, std=std, zero_rows=oov)
        self.linear = RowTable(self.layout.total_rows, 1, std=0.0) if with_linear else None
        width = [max(d for d, (f, *_) in zip(size, pieces, strict=True) if f == at) for at in range(len(schema.fields))]
        self.groups = [(w, [f for f, v in enumerate(width) if v == w]) for w in sorted({*width} - {0})]
        for d in self.spans:
            fields = sorted({f for s, (f, *_) in zip(size, pieces, strict=True) if s == d})
            self.register_buffer(f"columns{d}", torch.tensor(self.layout.columns_of(fields)), persistent=False)

    @property
    def widths(self) -> list[tuple[int, int]]:
        """(fields, width) of every group that :meth:`forward` returns."""
        return [(len(fields), width) for width, fields in self.groups]

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Looks up a batch; see :meth:`optuna_aes.models.embedding.MixedEmbedding.forward`."""
        rows = self.layout.rows(ids)
        rows = rows + self.shift[self.index.piece_of(rows)]
        batch = self.layout.batch_rows(rows)
        linear = first_order(self.linear, self.layout, ids, rows, batch)
        if not self.groups:  # every block is dropped
            return [torch.zeros(len(ids), 0, 0, device=ids.device)], linear
        widest = self.groups[-1][0]
        values = torch.zeros(*ids.shape, widest, device=ids.device)
        for d in self.spans:
            columns: Tensor = getattr(self, f"columns{d}")
            values = values.index_add(1, columns, F.pad(self._part(d, columns, rows, batch), (0, widest - d)))
        pooled = self.layout.pool(values, ids)
        return [pooled[:, fields, :width] for width, fields in self.groups], linear

    def _part(self, d: int, columns: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        """Values of the columns that lie in blocks of size d, zeros for the others."""
        table = self.tables[str(d)]
        assert isinstance(table, RowTable)
        low, high = self.spans[d]
        leaf: Tensor = table.weight
        if batch is None:
            at = rows[:, columns] - low
        else:
            bounds = torch.tensor([low, high], device=rows.device)
            first, last = torch.searchsorted(batch.rows, bounds).tolist()
            at, leaf = batch.inverse[:, columns] - first, table.gather(batch.rows[first:last] - low)
        if len(leaf) == 0:  # the batch has no value of this size
            return leaf.new_zeros(*at.shape, d)
        inside = (at >= 0) & (at < len(leaf))
        return F.embedding(at.clamp(0, len(leaf) - 1), leaf) * inside.unsqueeze(2)
