"""What the subnets of a group have in common is computed once: the products of their first layer.

Most columns are used by most of a group's subnets, the more so the longer a search goes on. What the majority uses is
multiplied once; a subnet then adds the products of the columns that it has besides, and takes off those that it lacks. So
logits depend on the company that a subnet is scored in, within the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GroupPass = Callable[[Tensor, Tensor | None], Tensor]
"""Logits of a group, shape ``(subnets, rows)``, of values ``(columns, rows)`` and first-order sums ``(rows,)``."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a bank of embeddings the subnets of a group use.

    Args:
        used: bool of shape ``(subnets, columns)``; columns come in runs of ``width``, a field's each.
        inputs: The column of the full-width input that each column of the bank fills, int64 of shape ``(columns,)``.
        fields: Fields of the full-width input.
        width: Width of each of them.
    """

    used: npt.NDArray[np.bool_]
    inputs: npt.NDArray[np.int64]
    fields: int
    width: int


class GroupProducts:
    """A linear layer over the columns of each subnet of a group.

    Args:
        weight: Shape ``(units, full width)``.
        bias: Shape ``(units,)``.
        columns: What the subnets use.
    """

    def __init__(self, weight: Tensor, bias: Tensor, columns: Columns) -> None:
        self.weight, self.bias, self.inputs = weight, bias, columns.inputs
        users = columns.used.sum(0)
        # To have a column in what is common costs one product, and one more for each subnet that lacks it.
        common = 2 * users > len(columns.used) + 1
        self.common = self._product(common.astype(np.int64))
        # A subnet that has less of its own than it differs by goes alone.
        self.own = [
            (shares, self._product(used.astype(np.int64) - (common if shares else 0)))
            for used in columns.used
            for shares in [(used != common).sum() < used.sum()]
        ]

    def __call__(self, values: Tensor) -> Iterator[Tensor]:
        """The outputs of one subnet after the other.

        Args:
            values: Shape ``(columns, rows)``: columns are whole rows of memory here, so that choosing some is copying.

        Returns:
            Each of shape ``(rows, units)``.
        """
        at, weight = self.common
        common = torch.addmm(self.bias, values.index_select(0, at).t(), weight)
        for shares, (at, weight) in self.own:
            yield torch.addmm(common if shares else self.bias, values.index_select(0, at).t(), weight)

    def _product(self, sign: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The columns whose sign is not 0, and their weights with it, shape ``(columns, units)``."""
        at = np.flatnonzero(sign)
        device = self.weight.device
        weight = self.weight.t()[torch.from_numpy(self.inputs[at]).to(device)]
        return torch.from_numpy(at).to(device), weight * torch.from_numpy(sign[at]).to(weight).unsqueeze(1)


def fm_interactions(columns: Columns, like: Tensor) -> Callable[[Tensor], Tensor]:
    """Second-order terms of a factorisation machine, sums over fields both: products of the whole group with all columns.

    Args:
        columns: What the subnets use.
        like: Any tensor of the dtype and device.

    Returns:
        Gives ``(subnets, rows)`` of values ``(columns, rows)``.
    """
    used = torch.from_numpy(columns.used).to(like)
    by_column = used.view(len(used), -1, columns.width).permute(2, 0, 1).contiguous()

    def interactions(values: Tensor) -> Tensor:
        fields = values.view(-1, columns.width, values.shape[1]).transpose(0, 1)
        sums = torch.bmm(by_column, fields)  # (width, subnets, rows)
        return (sums.square_().sum(0) - used @ values.square()).mul_(0.5)

    return interactions
