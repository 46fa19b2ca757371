"""Backbones: from groups of field embeddings to a logit, over one interface."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.errors import InputError


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
    keep = words.view(torch.uint8)[: x.numel()].view(x.shape) >= level
    return x * keep.to(x.dtype).mul_(256 / (256 - level))


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
        with warnings.catch_warnings():  # torch warns of the empty weight of a layer without inputs
            warnings.filterwarnings("ignore", message="Initializing zero-element tensors")
            self.out = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits of shape ``(batch,)``.

        Args:
            x: Inputs of shape ``(batch, width)``.
            columns: If given, ``x`` holds only these columns of the full-width input, and only they are multiplied.
        """
        for i, layer in enumerate(self.hidden):
            x = _linear(layer, x, columns if i == 0 else None)
            if self.norms:
                x = self.norms[i](x)
            x = F.relu(x)
            if self.dropout and self.training:
                x = dropout(x, self.dropout)
        return _linear(self.out, x, None if len(self.hidden) else columns).squeeze(1)


def _linear(layer: nn.Module, x: Tensor, columns: Tensor | None) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight if columns is None else layer.weight[:, columns], layer.bias)


class Backbone(nn.Module):
    """Turns field embeddings into a logit.

    Args:
        widths: (fields, width) of every group of equally wide fields.
        hidden: Widths of the hidden layers.
        batch_norm: Whether hidden layers are batch-normalised.
        dropout: Share of hidden units dropped in training.
        batch_statistics: See :class:`Tower`.
    """

    first_order: ClassVar[bool] = False

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        *,
        hidden: Sequence[int],
        batch_norm: bool = False,
        dropout: float = 0.0,
        batch_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.tower = Tower(
            sum(fields * width for fields, width in widths),
            hidden,
            batch_norm=batch_norm,
            dropout=dropout,
            batch_statistics=batch_statistics,
        )

    def forward(self, groups: Sequence[Tensor], linear: Tensor | None, columns: Tensor | None = None) -> Tensor:
        """Logits of a batch.

        Args:
            groups: Field embeddings, each of shape ``(batch, fields, width)``.
            linear: Sum of first-order weights, shape ``(batch,)``, for backbones that use it.
            columns: When the groups are a subnet's, the columns of the full-width input that they fill, int64.

        Returns:
            Shape ``(batch,)``.
        """
        raise NotImplementedError


def flatten(groups: Sequence[Tensor]) -> Tensor:
    """All embeddings of a sample side by side, shape ``(batch, sum of fields × width)``."""
    return torch.cat([g.flatten(1) for g in groups], dim=1)


def fm_interaction(groups: Sequence[Tensor]) -> Tensor:
    """Second-order term of a factorisation machine (Rendle, 2010): Σ_{f<g} <e_f, e_g>.

    Narrow embeddings meet wide ones as if padded with zeros, which costs nothing here: the sum over fields is taken
    column by column.

    Args:
        groups: Field embeddings, each of shape ``(batch, fields, width)``.

    Returns:
        Shape ``(batch,)``.
    """
    widest = max(g.shape[2] for g in groups)
    total = groups[0].new_zeros(len(groups[0]), widest)
    squares = groups[0].new_zeros(len(groups[0]))
    for g in groups:
        total[:, : g.shape[2]] += g.sum(1)
        squares = squares + g.square().sum(dim=(1, 2))
    return 0.5 * (total.square().sum(1) - squares)


class MLP(Backbone):
    """A multilayer perceptron over the concatenated embeddings."""

    def forward(self, groups: Sequence[Tensor], linear: Tensor | None, columns: Tensor | None = None) -> Tensor:
        """See :meth:`Backbone.forward`."""
        logits: Tensor = self.tower(flatten(groups), columns)
        return logits


class DeepFM(Backbone):
    """DeepFM (Guo, Tang, Ye, Li, He, 2017, arXiv 1703.04247): first order + factorisation machine + deep tower."""

    first_order = True

    def forward(self, groups: Sequence[Tensor], linear: Tensor | None, columns: Tensor | None = None) -> Tensor:
        """See :meth:`Backbone.forward`."""
        assert linear is not None
        logits: Tensor = linear + fm_interaction(groups) + self.tower(flatten(groups), columns)
        return logits


BACKBONES: dict[str, type[Backbone]] = {"mlp": MLP, "deepfm": DeepFM}


def backbone_class(name: str) -> type[Backbone]:
    """The backbone of that name.

    Raises:
        InputError: If there is none.
    """
    try:
        return BACKBONES[name]
    except KeyError:
        raise InputError(f"backbone={name!r} is not known: give one of {', '.join(BACKBONES)}") from None
