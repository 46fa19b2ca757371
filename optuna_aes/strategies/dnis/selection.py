"""The soft selection's step, and what columns are worth after it. Tensors in, tensors out.

Cheng, Shen and Huang, 2020, arXiv 2006.04466; the step is as their public code has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

RANKS = ("alpha", "merged")


def selection_step(alpha: Tensor, gradient: Tensor, *, rate: float, l1: float) -> Tensor:
    """One step of the soft selection on J = L_val + λ₁ Σ|α|: gradient normalised by block, SGD, clamp to [0, 1].

    Args:
        alpha: α of every block and column, shape ``(blocks, D)``.
        gradient: Of the validation loss, of the same shape.
        rate: Learning rate.
        l1: λ₁.
    """
    full = gradient + l1 * alpha.sign()
    scale = full.abs().mean(dim=1, keepdim=True) + 1e-8
    return (alpha - rate * full / scale).clamp(0.0, 1.0)


def merged_importance(squares: Tensor, alpha: Tensor, rows: Tensor, price: float) -> Tensor:
    """Norms of the columns of E ⊙ α over (rows) ** price.

    Args:
        squares: Sums over rows of squared weights, shape ``(blocks, D)``.
        alpha: Shape ``(blocks, D)``.
        rows: Rows of every block, shape ``(blocks,)``.
        price: 0.5 gives root mean squares, 0 norms.
    """
    return squares.sqrt() * alpha / rows.unsqueeze(1) ** price


def places(first: Tensor, second: Tensor) -> Tensor:
    """Every entry's place in the order by ``first``, and between equals by ``second``; entries equal in both share one.

    Args:
        first: Shape ``(blocks, D)``.
        second: Of the same shape.

    Returns:
        Float, of the same shape: 0 for the lowest.
    """
    pairs = torch.stack([first.reshape(-1).double(), second.reshape(-1).double()], dim=1)
    place: Tensor = torch.unique(pairs, dim=0, return_inverse=True)[1]
    return place.reshape(first.shape).to(first.dtype)
