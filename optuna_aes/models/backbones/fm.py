"""The family of the factorisation machine: first-order weights, with pairwise interactions, a tower, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optuna_aes.models.backbones.base import Backbone, flatten
from optuna_aes.models.backbones.group import Columns, GroupPass, fm_interactions
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
    found: Tensor = _Interaction.apply(*groups)  # type: ignore[no-untyped-call]  # torch's apply
    return found


class _Interaction(torch.autograd.Function):
    """The term with its gradient written out, (Σ_g e_g − e_f) ∂L/∂out: torch's own takes three times as long."""

    @staticmethod
    def forward(ctx: Any, *groups: Tensor) -> Tensor:
        ctx.save_for_backward(*groups)
        out = _sum_of_fields(groups).square().sum(1)
        for g in groups:  # norms, as squares would be written out before they are summed
            out -= torch.linalg.vector_norm(g.flatten(1), dim=1).square_()
        return out.mul_(0.5)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        groups, grad = ctx.saved_tensors, grads[0].view(-1, 1, 1)
        total = _sum_of_fields(groups).unsqueeze(1)
        return tuple((total[:, :, : g.shape[2]] - g).mul_(grad) for g in groups)


def _sum_of_fields(groups: Sequence[Tensor]) -> Tensor:
    """Sum of a sample's embeddings, shape ``(batch, widest)``."""
    widest = max(g.shape[2] for g in groups)
    if len(groups) == 1:
        return groups[0].sum(1)
    total = groups[0].new_zeros(len(groups[0]), widest)
    for g in groups:
        total[:, : g.shape[2]] += g.sum(1)
    return total


class FM(Backbone):
    """A factorisation machine (Rendle, 2010): w_0 + Σ w_f + Σ_{f<g} <e_f, e_g>. It has no tower."""

    first_order = True
    groups = True

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

    def group(self, columns: Columns) -> GroupPass:
        """See :meth:`Backbone.group`."""
        interactions = fm_interactions(columns, self.bias)

        def logits(values: Tensor, linear: Tensor | None) -> Tensor:
            assert linear is not None
            return interactions(values) + (self.bias + linear)

        return logits


class WideDeep(TowerBackbone):
    """Wide & Deep (Cheng et al., 2016, arXiv 1606.07792): first order + deep tower.

    The paper's wide part also takes products of columns that someone has picked by hand; none are picked here.
    """

    first_order = True
    groups = True

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

    def group(self, columns: Columns) -> GroupPass:
        """See :meth:`Backbone.group`."""
        tower = self.tower_group(columns)

        def logits(values: Tensor, linear: Tensor | None) -> Tensor:
            assert linear is not None
            return tower(values) + linear

        return logits


class DeepFM(TowerBackbone):
    """DeepFM (Guo, Tang, Ye, Li, He, 2017, arXiv 1703.04247): first order + factorisation machine + deep tower."""

    first_order = True
    groups = True

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

    def group(self, columns: Columns) -> GroupPass:
        """See :meth:`Backbone.group`."""
        tower, interactions = self.tower_group(columns), fm_interactions(columns, self.tower.first.weight)

        def logits(values: Tensor, linear: Tensor | None) -> Tensor:
            assert linear is not None
            return tower(values) + interactions(values) + linear

        return logits
