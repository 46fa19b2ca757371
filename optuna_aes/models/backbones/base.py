"""The interface of all backbones."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.backbones.group import Columns, GroupPass


class Backbone(nn.Module, ABC):
    """Turns field embeddings into a logit.

    All backbones are made with the same arguments, and each uses those that mean something to it.

    Args:
        widths: (fields, width) of every group of equally wide fields.
        hidden: Widths of the tower's hidden layers.
        batch_norm: Whether hidden layers are batch-normalised.
        dropout: Share of hidden units dropped in training.
        cross_layers: Number of cross layers.
        batch_statistics: Whether batch norm always uses the statistics of the batch at hand, as the subnets of a
            supernet must, each of which has statistics of its own.
    """

    first_order: ClassVar[bool] = False
    by_field: ClassVar[bool] = False
    groups: ClassVar[bool] = False

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        *,
        hidden: Sequence[int],
        batch_norm: bool = False,
        dropout: float = 0.0,
        cross_layers: int = 3,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()

    @classmethod
    def check_fields(cls, count: int) -> None:
        """Refuses data that the backbone is not made for.

        Args:
            count: Fields of the data, dropped ones included.

        Raises:
            InputError: If it is not made for so many.
        """

    @abstractmethod
    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Logits of a batch.

        Args:
            groups: Field embeddings, each of shape ``(batch, fields, width)``.
            linear: Sum of first-order weights, shape ``(batch,)``, for backbones that use it.
            columns: When the groups are a subnet's, the columns of the full-width input that they fill, int64.
            present: When a whole-width input has dropped fields among it, which rows have which fields: bool of shape
                ``(batch, fields)``. Only backbones ``by_field`` are told: to the others zeros are the same.

        Returns:
            Shape ``(batch,)``.
        """

    def group(self, columns: Columns) -> GroupPass:
        """The forward passes of a group of subnets, with what they have in common computed once.

        Only backbones with ``groups`` have it; with the others each subnet has a forward pass of its own.

        Args:
            columns: What each of the subnets uses.
        """
        raise NotImplementedError


def total_width(widths: Sequence[tuple[int, int]]) -> int:
    """Columns of the embeddings side by side."""
    return sum(fields * width for fields, width in widths)


def flatten(groups: Sequence[Tensor]) -> Tensor:
    """All embeddings of a sample side by side, shape ``(batch, sum of fields × width)``."""
    if len(groups) == 1:  # which cat would copy
        return groups[0].flatten(1)
    return torch.cat([g.flatten(1) for g in groups], dim=1)


def quiet_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """A linear layer that may have no inputs, of whose empty weight torch warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
        return nn.Linear(inputs, outputs, bias=bias)


def apply_linear(layer: nn.Module, x: Tensor, columns: Tensor | None) -> Tensor:
    """A linear layer's output, of inputs that may be only some ``columns`` of those it is made for."""
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight if columns is None else layer.weight[:, columns], layer.bias)
