"""The right-sized embedding: every field at its own size, fields of equal size in one table."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from optuna_aes.data.dataset import Schema
from optuna_aes.errors import InputError
from optuna_aes.models.layout import FieldLayout
from optuna_aes.models.rows import BatchRows, RowTable


class MixedEmbedding(nn.Module):
    """Embeddings of mixed sizes.

    Fields of one size share a concatenated table with offsets, so a lookup costs one call per distinct size, not per
    field. Fields of size 0 are dropped.

    Args:
        schema: The dataset's fields.
        sizes: Size of every field by name.
        dim: The common width D.
        align: ``"pad"``: sizes stay as they are and a backbone that wants equal widths treats missing columns as zeros;
            ``"linear"``: each field smaller than ``dim`` gets a linear map to it.
        first_order: Whether every value also has a scalar weight, whatever its field's size.
        std: Standard deviation of the initial values.
        generator: Source of the initial values.

    Raises:
        InputError: If a field has no size, or one that no table can have.
    """

    def __init__(
        self,
        schema: Schema,
        sizes: Mapping[str, int],
        *,
        dim: int,
        align: str = "pad",
        first_order: bool = False,
        std: float = 0.01,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        chosen = [_size(sizes, f.name) for f in schema.fields]
        if align == "linear" and max(chosen) > dim:
            raise InputError(
                f"sizes has {max(chosen)}, which align='linear' cannot map to dim={dim}: give at most {dim}"
            )
        order = sorted(range(len(chosen)), key=lambda f: (chosen[f], f))
        self.layout = FieldLayout(schema, order)
        self.dim = dim
        self.groups = [(d, [f for f in order if chosen[f] == d]) for d in sorted({d for d in chosen if d > 0})]
        rows = [sum(schema.fields[f].cardinality for f in fields) for _, fields in self.groups]
        first = self.layout.total_rows - sum(rows)
        self.starts: list[int] = [first + sum(rows[:g]) for g in range(len(rows))]
        self.tables = nn.ModuleDict()
        for (size, fields), start, count in zip(self.groups, self.starts, rows, strict=True):
            zero_rows = [self.layout.oov_rows[f] - start for f in fields]
            self.tables[str(size)] = RowTable(count, size, std=std, zero_rows=zero_rows, generator=generator)
        self.maps = nn.ParameterDict()
        if align == "linear":
            for size, fields in self.groups:
                if size < dim:
                    bound = size**-0.5
                    init = torch.empty(len(fields), size, dim).uniform_(-bound, bound, generator=generator)
                    self.maps[str(size)] = nn.Parameter(init)
        self.linear = RowTable(self.layout.total_rows, 1, std=0.0) if first_order else None
        for g, (_, fields) in enumerate(self.groups):
            self.register_buffer(f"columns{g}", torch.tensor(self.layout.columns_of(fields)), persistent=False)

    @property
    def widths(self) -> list[tuple[int, int]]:
        """(fields, width) of every group that :meth:`forward` returns."""
        return [(len(fields), self.dim if str(size) in self.maps else size) for size, fields in self.groups]

    def forward(self, ids: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Looks up a batch.

        Args:
            ids: int32, shape ``(batch, columns)``.

        Returns:
            The groups of equally wide fields, each of shape ``(batch, fields, width)``, and the sum of the first-order
            weights, shape ``(batch,)``, or None.
        """
        rows = self.layout.rows(ids)
        batch = self.layout.batch_rows(rows)
        groups = [self._group(g, ids, rows, batch) for g in range(len(self.groups))]
        if not groups:  # every field is dropped
            groups = [torch.zeros(len(ids), 0, 0, device=ids.device)]
        return groups, first_order(self.linear, self.layout, ids, rows, batch)

    def _group(self, g: int, ids: Tensor, rows: Tensor, batch: BatchRows | None) -> Tensor:
        size, fields = self.groups[g]
        start = self.starts[g]
        columns: Tensor = getattr(self, f"columns{g}")
        table = self.tables[str(size)]
        assert isinstance(table, RowTable)
        whole = len(self.groups) == 1 and len(fields) == len(self.layout.columns)
        if batch is None:
            values = table.lookup(rows if whole else rows[:, columns] - start)
        else:
            # Fields of one size lie next to each other, so the group's rows are one range of the sorted distinct rows.
            part = batch if whole else batch.part(start, start + len(table.weight), columns)
            values = part.lookup(table.gather(part.rows))
        pooled = self.layout.pool(values, ids, fields)
        if str(size) in self.maps:
            return torch.einsum("bfd,fde->bfe", pooled, self.maps[str(size)])
        return pooled


def _size(sizes: Mapping[str, int], name: str) -> int:
    if name not in sizes:
        raise InputError(f"sizes has no size for field {name!r}: give 0 to drop it")
    if sizes[name] < 0:
        raise InputError(f"sizes[{name!r}]={sizes[name]} must be 0 or more")
    return int(sizes[name])


def first_order(
    table: RowTable | None, layout: FieldLayout, ids: Tensor, rows: Tensor, batch: BatchRows | None
) -> Tensor | None:
    """Sum of the first-order weights of each sample, shape ``(batch,)``; None without such weights."""
    if table is None:
        return None
    if batch is None:
        values = table.lookup(rows)
    else:
        values = batch.lookup(table.gather(batch.rows))
    return layout.pool(values, ids).sum(dim=(1, 2))
