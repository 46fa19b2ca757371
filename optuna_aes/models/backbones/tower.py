"""The deep tower, and the backbone that is nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.backbones.base import Backbone, apply_linear, flatten, quiet_linear, total_width
from optuna_aes.models.backbones.group import Columns, GroupPass, GroupProducts


def dropout(x: Tensor, share: float) -> Tensor:
    """Dropout whose masks cost a third of torch's on the CPU, where drawing them is a fifth of a CTR model's step.

    Eight bytes of a random integer decide on eight units, so there the share is rounded to a multiple of 1/256; what is
    kept is scaled by the rounded share, and the mean stays as it is.

    Args:
        x: Activations of any shape.
        share: Share of them to drop.
    """
    level = round(share * 256)
    if x.device.type != "cpu" or not 0 < level < 256:
        return F.dropout(x, share)
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    keep = (words.view(torch.uint8)[: x.numel()].view(x.shape) >= level).to(x.dtype)
    scale = 256 / (256 - level)
    if x.dtype == torch.bfloat16:  # would round the scale itself, and all that is kept with it
        return x * keep * scale
    return x * keep.mul_(scale)


class Tower(nn.Module):
    """Fully connected layers: linear, optional batch norm, ReLU, optional dropout; then one logit.

    Args:
        width: Input width; 0 is allowed and gives a constant.
        hidden: Widths of the hidden layers.
        batch_norm: Whether each hidden layer is normalised before its ReLU.
        dropout: Share of hidden units dropped in training.
        batch_statistics: Whether batch norm always uses the statistics of the batch at hand, as the subnets of a
            supernet must, each of which has statistics of its own.
    """

    def __init__(
        self,
        width: int,
        hidden: Sequence[int],
        *,
        batch_norm: bool = False,
        dropout: float = 0.0,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        if not width:  # nothing to learn from: hidden layers would only make a constant the long way round
            hidden = ()
        widths = [width, *hidden]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        norms = (nn.BatchNorm1d(units, track_running_stats=not batch_statistics) for units in hidden)
        self.norms = nn.ModuleList(norms if batch_norm else ())
        self.dropout = dropout
        self.out = quiet_linear(widths[-1], 1)

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits of shape ``(batch,)``.

        Args:
            x: Inputs of shape ``(batch, width)``.
            columns: If given, ``x`` holds only these columns of the full-width input, and only they are multiplied.
        """
        for i, layer in enumerate(self.hidden):
            x = self._activated(i, apply_linear(layer, x, columns if i == 0 else None))
        return apply_linear(self.out, x, None if len(self.hidden) else columns).squeeze(1)

    @property
    def first(self) -> nn.Linear:
        """The first hidden layer, of a tower that has inputs."""
        layer = self.hidden[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def above(self, x: Tensor) -> Tensor:
        """Logits of shape ``(batch,)`` from what the first layer gave, shape ``(batch, units)``."""
        x = self._activated(0, x)
        for i, layer in enumerate(self.hidden[1:], start=1):
            x = self._activated(i, layer(x))
        logits: Tensor = self.out(x).squeeze(1)
        return logits

    def _activated(self, i: int, x: Tensor) -> Tensor:
        """What layer ``i`` makes of its products."""
        if self.norms:
            x = self.norms[i](x)
        x = F.relu(x, inplace=not torch.is_grad_enabled())
        return dropout(x, self.dropout) if self.dropout and self.training else x


class TowerBackbone(Backbone):
    """A backbone that has a tower over the concatenated embeddings. Arguments as for :class:`Backbone`."""

    def __init__(self, widths: Sequence[tuple[int, int]], **options: Any) -> None:
        super().__init__(widths, **options)
        names = ("hidden", "batch_norm", "dropout", "batch_statistics")
        self.tower = Tower(total_width(widths), **{name: options[name] for name in names if name in options})

    def tower_group(self, columns: Columns) -> Callable[..., Tensor]:
        """The tower's part of :meth:`Backbone.group`; first-order sums are not looked at."""
        first = GroupProducts(self.tower.first.weight, self.tower.first.bias, columns)

        def logits(values: Tensor, linear: Tensor | None = None) -> Tensor:
            return torch.stack([self.tower.above(x) for x in first(values)])

        return logits


class MLP(TowerBackbone):
    """A multilayer perceptron over the concatenated embeddings."""

    groups = True

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        logits: Tensor = self.tower(flatten(groups), columns)
        return logits

    def group(self, columns: Columns) -> GroupPass:
        """See :meth:`Backbone.group`."""
        return self.tower_group(columns)
