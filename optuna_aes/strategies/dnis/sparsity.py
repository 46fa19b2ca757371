"""Unstructured sparsity of a merged table, and what it takes to store with its indices. numpy only.

Zeros scattered over a table save no dense memory, and every weight that is left needs to say where it stands; so this is
reported apart from sizes, which an ordinary table can hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import InputError


@dataclass(frozen=True)
class SparseCost:
    """Bytes of a table of which some weights are zero.

    Args:
        nonzero: Weights that are left.
        share: Of all weights.
        dense_bytes: As an ordinary table, zeros included.
        csr_bytes: As compressed rows: the weights, a column number each, and where every row starts.
        bitmap_bytes: As the weights, a bit for every place, and where every row starts.
    """

    nonzero: int
    share: float
    dense_bytes: int
    csr_bytes: int
    bitmap_bytes: int

    @property
    def bytes(self) -> int:
        """The least of the three."""
        return min(self.dense_bytes, self.csr_bytes, self.bitmap_bytes)


def sparse_cost(table: npt.NDArray[np.floating]) -> SparseCost:
    """What a table costs with and without its zeros.

    Args:
        table: Shape ``(rows, D)``; its dtype is the one that it is stored in.
    """
    rows, dim = table.shape
    nonzero = int(np.count_nonzero(table))
    values = nonzero * table.itemsize
    starts = (rows + 1) * _index_bytes(nonzero + 1)
    return SparseCost(
        nonzero=nonzero,
        share=nonzero / table.size if table.size else 0.0,
        dense_bytes=table.nbytes,
        csr_bytes=values + nonzero * _index_bytes(dim) + starts,
        bitmap_bytes=values + rows * -(-dim // 8) + starts,
    )


def sparsified(table: npt.NDArray[np.floating], share: float) -> npt.NDArray[np.floating]:
    """A copy with all but the largest weights set to zero.

    Args:
        table: Shape ``(rows, D)``, such as E ⊙ α.
        share: Share of the weights to leave, at most; of equal ones none or all are left.

    Raises:
        InputError: If it is out of range.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share={share} is out of range: give 0 to 1")
    size = np.abs(table)
    count = int(share * table.size)
    if count == table.size:
        return table.copy()
    # Everything above the largest weight that there is no room for.
    threshold = np.partition(size.reshape(-1), table.size - count - 1)[table.size - count - 1]
    return np.where(size > threshold, table, np.zeros_like(table))


def pruned_to(table: npt.NDArray[np.floating], limit: float) -> npt.NDArray[np.floating]:
    """A copy with as many of the largest weights as can be stored, with their indices, in so many bytes.

    Args:
        table: Shape ``(rows, D)``.
        limit: Bytes, of the cheapest way to store it; below what an empty table takes, nothing is left.
    """
    low, high = 0, table.size
    while low < high:  # bytes grow with the weights that are left
        middle = (low + high + 1) // 2
        if sparse_cost(sparsified(table, middle / table.size)).bytes <= limit:
            low = middle
        else:
            high = middle - 1
    return sparsified(table, low / table.size if table.size else 0.0)


def _index_bytes(count: int) -> int:
    """Bytes of a number below ``count``."""
    return next(width for width in (1, 2, 4, 8) if count <= 256**width)
