"""The family of the factorisation machine: first-order weights, with pairwise interactions, a tower, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optuna_aes.models.backbones.base import Backbone, flatten
from optuna_aes.models.backbones.tower import TowerBackbone


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


class FM(Backbone):
    """A factorisation machine (Rendle, 2010): w_0 + Σ w_f + Σ_{f<g} <e_f, e_g>. It has no tower."""

    first_order = True

    def __init__(self, widths: Sequence[tuple[int, int]], **options: Any) -> None:
        super().__init__(widths, **options)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        assert linear is not None
        return self.bias + linear + fm_interaction(groups)


class WideDeep(TowerBackbone):
    """Wide & Deep (Cheng et al., 2016, arXiv 1606.07792): first order + deep tower.

    The paper's wide part also takes products of columns that someone has picked by hand; none are picked here.
    """

    first_order = True

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        assert linear is not None
        logits: Tensor = linear + self.tower(flatten(groups), columns)
        return logits


class DeepFM(TowerBackbone):
    """DeepFM (Guo, Tang, Ye, Li, He, 2017, arXiv 1703.04247): first order + factorisation machine + deep tower."""

    first_order = True

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        assert linear is not None
        logits: Tensor = linear + fm_interaction(groups) + self.tower(flatten(groups), columns)
        return logits
