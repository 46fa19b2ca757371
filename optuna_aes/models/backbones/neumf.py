"""Neural matrix factorisation, for tables of users and items alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from optuna_aes.errors import InputError
from optuna_aes.models.backbones.base import flatten, quiet_linear
from optuna_aes.models.backbones.tower import TowerBackbone


class NeuMF(TowerBackbone):
    """NeuMF (He et al., 2017, arXiv 1708.05031): weighted products of two fields, beside a tower.

    The paper gives either part embeddings of its own. Here both share one, since a field has one size to be searched for.
    Where the two differ in size, only the columns that both have make products: the others would meet zeros.
    """

    def __init__(self, widths: Sequence[tuple[int, int]], **options: Any) -> None:
        super().__init__(widths, **options)
        fields = [width for count, width in widths for _ in range(count)]
        self.product = quiet_linear(min(fields) if len(fields) == 2 else 0, 1, bias=False)  # the tower's has one

    @classmethod
    def check_fields(cls, count: int) -> None:
        """See :meth:`Backbone.check_fields`."""
        if count != 2:
            raise InputError(
                f"backbone='neumf' takes two fields, a user and an item, and the data has {count}: give another"
            )

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        logits: Tensor = self.tower(flatten(groups), columns)
        fields = [field for g in groups for field in g.unbind(1)]
        if len(fields) < 2:  # one is dropped, or both
            return logits
        first, second = fields
        common = min(first.shape[1], second.shape[1])
        product = first[:, :common] * second[:, :common]
        return logits + F.linear(product, self.product.weight[:, :common]).squeeze(1)
