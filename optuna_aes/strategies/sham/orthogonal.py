"""Orthogonal regularity of embedding tables: columns that say the same are pushed apart.

SHAM (Xiao et al., 2022, arXiv 2208.08004) names it; that it is ‖V̂ᵀV̂ − I‖²_F / D² over the rows of a batch is a
reconstruction.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonality(table: Tensor) -> Tensor:
    """‖V̂ᵀV̂ − I‖²_F / D², V̂ the table with columns of norm 1; columns of zeros count as orthogonal.

    Args:
        table: Shape ``(rows, D)``.
    """
    return _residual(table)[2].square().sum() / table.shape[1] ** 2


def orthogonality_gradient(table: Tensor) -> Tensor:
    """The gradient of :func:`orthogonality`, in closed form, shape ``(rows, D)``."""
    unit, norm, residual = _residual(table)
    outer = 4.0 / table.shape[1] ** 2 * (unit @ residual)
    along = (unit * outer).sum(0)
    return (outer - unit * along) / norm


def _residual(table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """V̂, the columns' norms, and V̂ᵀV̂ − I, without the diagonal of columns that are zero."""
    norm = table.norm(dim=0).clamp(min=1e-12)
    unit = table / norm
    gram = unit.T @ unit
    return unit, norm, gram - torch.diag((norm > 1e-12).to(gram.dtype))
