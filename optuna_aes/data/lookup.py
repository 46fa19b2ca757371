"""A hash table that looks up a whole batch at once.

One value after the other, as dictionaries do it, each lookup waits for memory as soon as the vocabulary is larger than the
processor's cache. Here a batch is looked up by a few gathers, within each of which the waits overlap.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

FREE = np.uint64(0)  # in place of a hash, where a slot is not taken
FIRST = np.uint64(1)  # the smallest hash that a value may have


class CodeTable:
    """Codes by the hashes of their values, in 24 to 48 bytes a value.

    Two values are told apart by 64 bits: of a million values any two share them with a probability of 3·10⁻⁸.
    """

    def __init__(self) -> None:
        self._count = 0
        self._resize(1024)

    def find(self, hashes: Hashes) -> tuple[npt.NDArray[np.uint32], Positions]:
        """The codes of hashes, and the positions of those that are not in the table, whose codes mean nothing."""
        at = self._slot(hashes)
        found, codes = self._hashes.take(at), self._codes.take(at)
        left = np.flatnonzero(found != hashes)
        at, found = at[left], found[left]
        unknown = [left[:0]]
        while len(left):
            taken = found != FREE
            unknown.append(left[~taken])
            left, at = left[taken], self._next(at[taken])
            found = self._hashes.take(at)
            hit = found == hashes[left]
            codes[left[hit]] = self._codes.take(at[hit])
            left, at, found = left[~hit], at[~hit], found[~hit]
        return codes, np.concatenate(unknown)

    def add(self, hashes: Hashes, codes: npt.NDArray[np.uint32]) -> None:
        """Takes in what is not there yet; a hash may come several times.

        Args:
            hashes: At least one.
            codes: Theirs. All codes together are the numbers from 0 on, so that the largest tells how many there are.
        """
        self._count = max(self._count, int(codes.max()) + 1)
        if 2 * self._count > len(self._hashes):
            taken = self._hashes != FREE
            old = self._hashes[taken], self._codes[taken]
            self._resize(1 << (2 * self._count).bit_length())
            self._place(*old)
        self._place(hashes, codes)

    def _resize(self, slots: int) -> None:
        self._hashes = np.zeros(slots, dtype=np.uint64)
        self._codes = np.zeros(slots, dtype=np.uint32)

    def _slot(self, hashes: Hashes) -> Positions:
        """Where to look first."""
        return (hashes & np.uint64(len(self._hashes) - 1)).view(np.int64)

    def _next(self, slots: Positions) -> Positions:
        """Where to look next."""
        return (slots + 1) & (len(self._hashes) - 1)

    def _place(self, hashes: Hashes, codes: npt.NDArray[np.uint32]) -> None:
        at = self._slot(hashes)
        while len(hashes):
            free = self._hashes.take(at) == FREE
            self._hashes[at[free]] = hashes[free]  # of several for one slot the last one stays
            lost = self._hashes.take(at) != hashes
            self._codes[at[~lost]] = codes[~lost]
            hashes, codes, at = hashes[lost], codes[lost], self._next(at[lost])
