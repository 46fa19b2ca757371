"""Paths through the space of sizes: what one fit of a pruning method gives instead of a policy. numpy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def threshold_path(importance: npt.NDArray[np.floating]) -> Ints:
    """Sizes by threshold: at each one, every field keeps its columns whose importance is above it.

    Args:
        importance: Of every column, shape ``(fields, D)``.

    Returns:
        Nested sizes from none to all columns, int64 of shape ``(points, fields)``: equal columns come together.
    """
    levels, rank = np.unique(importance, return_inverse=True)
    rank = rank.reshape(importance.shape)
    return np.stack([(rank >= level).sum(1) for level in range(len(levels), -1, -1)]).astype(np.int64)


def to_candidates(sizes: Ints, candidates: Sequence[int]) -> Ints:
    """Positions of the largest candidates that are no larger than the sizes; below the smallest one, of that one.

    Args:
        sizes: Shape ``(points, fields)``.
        candidates: Ascending.

    Returns:
        Shape ``(distinct points, fields)``, in the order of first occurrence.
    """
    positions = np.maximum(np.searchsorted(np.asarray(candidates), sizes, side="right") - 1, 0)
    _, first = np.unique(positions, axis=0, return_index=True)
    return np.asarray(positions[np.sort(first)], dtype=np.int64)


def widest_gaps(costs: Ints, known: dict[int, float], count: int) -> list[int]:
    """Which points of a path to look at next: those that split the front's widest gaps.

    Between neighbours that are known the front may still gain (difference of values) × (difference of costs) in
    hypervolume at most; the path's point nearest to the middle of the widest such gap comes next, and counts as known at
    a value in between until it is. The ends of the path come first.

    Args:
        costs: Cost of every point, ascending, shape ``(points,)``.
        known: Values of the points that are known, by position.
        count: How many are wanted.

    Returns:
        At most ``count`` positions that are not known.
    """
    values = dict(known)
    asked: list[int] = []
    while len(asked) < count and len(values) < len(costs):
        ends = [end for end in (len(costs) - 1, 0) if end not in values]
        if ends:
            at = ends[0]
            guess = float(np.mean(list(values.values()))) if values else 0.0
        else:
            at, guess = _middle(costs, values)
        values[at] = guess
        asked.append(at)
    return asked


def _middle(costs: Ints, values: dict[int, float]) -> tuple[int, float]:
    """The point in the middle of the widest gap, and a value for it until it has one."""
    places = np.array(sorted(values))
    scores = np.array([values[int(at)] for at in places])
    inside = np.diff(places) > 1
    width = np.diff(costs[places]).astype(np.float64)
    # Where values are equal, or fall, there is still something to learn: such gaps count by their width alone.
    rise = np.maximum(np.diff(scores), 1e-3 * max(float(np.ptp(scores)), 1e-12))
    gap = int(np.argmax(np.where(inside, width * rise, -1.0)))
    low, high = int(places[gap]), int(places[gap + 1])
    middle = (costs[low] + costs[high]) / 2
    at = low + 1 + int(np.argmin(np.abs(costs[low + 1 : high] - middle)))
    return at, float(scores[gap] + scores[gap + 1]) / 2
