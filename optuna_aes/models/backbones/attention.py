"""Attention among fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.backbones.base import Backbone, quiet_linear

LAYERS, HEADS, HEAD_WIDTH = 3, 2, 32  # as in the paper's experiments


class InteractingLayer(nn.Module):
    """Fields attend to fields, ReLU(attention(e) + W_res e), by the paper's unscaled inner products.

    Args:
        width: Width of a field at its input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.residual = (
            nn.Linear(width, HEADS * HEAD_WIDTH, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Fields after attention, shape ``(batch, fields, HEADS × HEAD_WIDTH)``.

        Args:
            x: Fields, shape ``(batch, fields, width)``.
            present: Which of them there are, bool of shape ``(batch, fields)``; nobody attends to the others.
        """
        query, key, value = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3)  # (batch, heads, fields, fields)
        if present is not None:
            # Not -inf: a row without any field would be NaN, in its gradient too.
            scores = scores.masked_fill(~present[:, None, None, :], torch.finfo(scores.dtype).min)
        mixed = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
        return F.relu(mixed + self.residual(x))

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], HEADS, HEAD_WIDTH).transpose(1, 2)


class AutoInt(Backbone):
    """AutoInt (Song et al., 2018, arXiv 1810.11921): layers of multi-head self-attention among fields, without a tower.

    Narrow fields are padded with zeros. A field of size 0 is not there: it is attended to by none and adds nothing to
    the logit.
    """

    by_field = True

    def __init__(self, widths: Sequence[tuple[int, int]], **options: Any) -> None:
        super().__init__(widths, **options)
        fields = sum(count for count, _ in widths)
        self.width = max((width for _, width in widths), default=0)
        inputs = [self.width, *[HEADS * HEAD_WIDTH] * (LAYERS - 1)] if fields else []
        self.layers = nn.ModuleList(InteractingLayer(width) for width in inputs)
        self.out = quiet_linear(fields * HEADS * HEAD_WIDTH, 1)

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        x = torch.cat([F.pad(g, (0, self.width - g.shape[2])) for g in groups], dim=1)
        if not x.shape[1]:  # every field is dropped
            return self.out.bias.expand(len(x))
        for layer in self.layers:
            x = layer(x, present)
        weight = self.out.weight.view(-1, HEADS * HEAD_WIDTH)
        if columns is not None:
            weight = weight[self._fields_of(groups, columns)]
        if present is not None:
            x = x * present.unsqueeze(2)
        return torch.einsum("bfd,fd->b", x, weight) + self.out.bias

    def _fields_of(self, groups: Sequence[Tensor], columns: Tensor) -> Tensor:
        """Which fields of the full-width input the groups hold, int64 of shape ``(fields,)``."""
        fields, start = [], 0
        for g in groups:
            end = start + g.shape[1] * g.shape[2]
            fields.append(columns[start : end : max(1, g.shape[2])] // self.width)
            start = end
        return torch.cat(fields)
