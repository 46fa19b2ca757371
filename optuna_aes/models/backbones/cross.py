"""The deep & cross network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from optuna_aes.models.backbones.base import apply_linear, flatten, quiet_linear, total_width
from optuna_aes.models.backbones.tower import TowerBackbone


class CrossLayers(nn.Module):
    """Full-matrix cross layers, x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l, and the linear map of the last to a logit.

    A column that is zero in x_0 stays zero in every x_l, whatever its weights: that is why a subnet may leave out its
    dropped columns altogether.

    Args:
        width: Input width; 0 is allowed and gives zeros.
        layers: Number of cross layers.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers if width else 0))
        self.out = quiet_linear(width, 1, bias=False)  # the tower's has one

    def forward(self, x0: Tensor, columns: Tensor | None = None) -> Tensor:
        """Contribution to the logit, shape ``(batch,)``.

        Args:
            x0: Inputs of shape ``(batch, width)``.
            columns: If given, ``x0`` holds only these columns of the full-width input, and only they are multiplied.
        """
        x = x0
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            if columns is None:
                mixed = F.linear(x, layer.weight, layer.bias)
            else:
                mixed = F.linear(x, layer.weight[columns][:, columns], layer.bias[columns])
            x = x0 * mixed + x
        return apply_linear(self.out, x, columns).squeeze(1)


class DCNv2(TowerBackbone):
    """DCN-V2 (Wang et al., 2020, arXiv 2008.13535), the parallel form with full matrices: cross layers beside a tower.

    The paper's one linear layer over both outputs side by side is written as the sum of its two parts, of which the
    tower holds one and the cross layers the other.
    """

    def __init__(self, widths: Sequence[tuple[int, int]], *, cross_layers: int = 3, **options: Any) -> None:
        super().__init__(widths, cross_layers=cross_layers, **options)
        self.cross = CrossLayers(total_width(widths), cross_layers)

    def forward(
        self,
        groups: Sequence[Tensor],
        linear: Tensor | None,
        columns: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """See :meth:`Backbone.forward`."""
        x = flatten(groups)
        logits: Tensor = self.cross(x, columns) + self.tower(x, columns)
        return logits
