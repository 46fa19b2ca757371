"""Where every field's rows lie in a concatenated table, and how a batch's columns become fields."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from optuna_aes.data.dataset import PAD, Schema
from optuna_aes.models.rows import BatchRows


class FieldLayout(nn.Module):
    """Maps the columns of encoded ids to rows of a concatenated table, and pools multi-valued fields.

    Args:
        schema: The dataset's fields.
        order: Order in which the fields' rows are laid out; a model that keeps one table per size puts fields of equal
            size next to each other. The schema's order by default.
    """

    column_offset: Tensor
    field_start: Tensor

    def __init__(self, schema: Schema, order: Sequence[int] | None = None) -> None:
        super().__init__()
        order = list(range(len(schema.fields))) if order is None else list(order)
        cardinalities = np.array([f.cardinality for f in schema.fields], dtype=np.int64)
        widths = np.array([f.width for f in schema.fields])
        start = np.zeros(len(order), dtype=np.int64)
        start[order] = np.concatenate([[0], np.cumsum(cardinalities[order])[:-1]])
        first_column = np.concatenate([[0], np.cumsum(widths)])
        self.total_rows = int(cardinalities.sum())
        self.field_rows: list[int] = cardinalities.tolist()
        self.oov_rows: list[int] = start.tolist()
        self.columns: list[slice] = [slice(int(a), int(b)) for a, b in itertools.pairwise(first_column)]
        self.bags = [f.kind == "multi" for f in schema.fields]
        self.has_bags = any(self.bags)
        offset = np.repeat(start, widths).astype(np.int32 if self.total_rows < 2**31 else np.int64)
        self.register_buffer("column_offset", torch.from_numpy(offset), persistent=False)
        self.register_buffer("field_start", torch.from_numpy(start), persistent=False)
        # Whether a step takes every row of the tables, and not only its batch's: see TrainOptions.decay.
        self.every_row = False
        # Whether tables have gradients of their own shape: see WholeTables.
        self.whole = False

    def rows(self, ids: Tensor) -> Tensor:
        """Row numbers of int32 ids, same shape; padding points at the field's out-of-vocabulary row.

        They are int32 too, but where the table has more rows than that can count.
        """
        return (ids.clamp(min=0) if self.has_bags else ids) + self.column_offset

    def batch_rows(self, rows: Tensor) -> BatchRows | None:
        """The distinct rows that a step reads and updates; None where nothing is to be found by row."""
        if self.whole or not torch.is_grad_enabled():
            return None
        if self.every_row:
            return BatchRows(torch.arange(self.total_rows, device=rows.device), rows)
        return BatchRows.of(rows, self.total_rows)

    def pool(self, values: Tensor, ids: Tensor, fields: Sequence[int] | None = None) -> Tensor:
        """Means over each bag's values, and everything else as it is.

        Args:
            values: Looked-up rows of the columns of ``fields``, shape ``(batch, columns, dim)``.
            ids: The batch's ids, all columns, shape ``(batch, all columns)``.
            fields: Which fields the columns belong to, in this order; all by default.

        Returns:
            Shape ``(batch, fields, dim)``.
        """
        if not self.has_bags:
            return values
        parts, at = [], 0
        for field in range(len(self.columns)) if fields is None else fields:
            columns = self.columns[field]
            width = columns.stop - columns.start
            part = values[:, at : at + width]
            if self.bags[field]:
                present = (ids[:, columns] != PAD).to(values.dtype).unsqueeze(2)
                part = (part * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1.0)
            parts.append(part)
            at += width
        return torch.cat(parts, dim=1)

    def columns_of(self, fields: Sequence[int]) -> list[int]:
        """The columns of the fields, in this order."""
        return [c for f in fields for c in range(self.columns[f].start, self.columns[f].stop)]
