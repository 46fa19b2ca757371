"""The auxiliary variables behind hard masks: their step, and the price of memory. numpy; knows neither model nor study.

Reconstruction of SHAM (Xiao et al., 2022, arXiv 2208.08004), whose abstract speaks of hard auxiliary masks that a simple
gradient-based method optimises directly in the discrete space. The step is that of AutoPrune (Xiao, Wang, Rajasekaran,
2019); that every step finds the price which it needs, and all of the bound, are ours.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SURROGATES = ("one", "softplus")


def slope(a: Floats, surrogate: str) -> Floats:
    """The derivative s'(a) that stands for that of the step function 1[a > 0]."""
    return np.ones_like(a) if surrogate == "one" else 1.0 / (1.0 + np.exp(-a))


def memory(a: Floats, rows: Floats) -> float:
    """Parameters of the open columns."""
    return float(rows @ (a > 0).sum(1))


def lowest_price(a: Floats, gain: Floats, share: Floats, rows: Floats, limit: float) -> float:
    """The lowest price of memory at which a step leaves no more than ``limit`` parameters open.

    A column closes where the price reaches what it is worth per parameter, (a / step + gain) / share; so the columns that
    are worth least go first.

    Args:
        a: Auxiliary variables over their step size, shape ``(fields, D)``.
        gain: What opening a column is worth, −G, shape ``(fields, D)``.
        share: Every field's share of all rows, shape ``(fields,)``.
        rows: Rows of every field's table, shape ``(fields,)``.
        limit: Parameters that may stay open.
    """
    worth = ((a + gain) / share[:, None]).reshape(-1)
    order = np.argsort(-worth, kind="stable")
    held = np.cumsum(np.repeat(rows, a.shape[1])[order])
    over = np.flatnonzero((held > limit) & (worth[order] > 0))
    return float(worth[order[over[0]]]) if len(over) else 0.0


def mask_step(
    a: Floats, gradient: Floats, rows: Floats, limit: float, *, rate: float, bound: float, surrogate: str
) -> tuple[Floats, float]:
    """One step of the auxiliary variables, a ← a − η (G + μ·n_f/Σn)·s'(a), at the lowest price μ that meets the limit.

    Args:
        a: Auxiliary variables, shape ``(fields, D)``; a column is open while its own is above 0.
        gradient: Straight-through gradients G of the masks, of closed columns too, shape ``(fields, D)``.
        rows: Rows of every field's table, shape ``(fields,)``.
        limit: Parameters that may stay open.
        rate: η.
        bound: Variables stay within ± this, so that no column is out of reach of a change of its worth.
        surrogate: See :func:`slope`.

    Returns:
        The new variables, and the price μ.
    """
    share = rows / rows.sum()
    step = rate * slope(a, surrogate)
    price = lowest_price(a / step, -gradient, share, rows, limit)
    moved = a - step * (gradient + price * share[:, None])
    # Rounding must not leave the column open whose closing the price was made for.
    closes = ((a / step - gradient) / share[:, None] <= price) if price > 0 else np.zeros_like(a, dtype=bool)
    return np.clip(np.where(closes, np.minimum(moved, 0.0), moved), -bound, bound), price
