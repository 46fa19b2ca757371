"""Clusters of rows by what their gates let through, and the sizes that each cluster needs. numpy and scikit-learn only."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

SMALLEST = 0.05
"""Share of the rows that a cluster of its own needs."""


@dataclass(frozen=True)
class Clustering:
    """Clusters of rows.

    Args:
        centroids: Shape ``(clusters, width)``.
        labels: The cluster of every row that it was made of, int64 of shape ``(rows,)``.
    """

    centroids: Floats
    labels: Ints


def nearest(features: Floats, centroids: Floats) -> Ints:
    """The centroid that is nearest to each row, int64 of shape ``(rows,)``."""
    # |x − c|² without |x|², which is the same for all centroids.
    return np.asarray((np.square(centroids).sum(1) - 2.0 * features @ centroids.T).argmin(1), dtype=np.int64)


def cluster(features: Floats, count: int, *, seed: int = 0, smallest: float = SMALLEST) -> Clustering:
    """K-means, with clusters that are too small given up one by one, the smallest first.

    A cluster is given up by taking its centroid away: its rows go to whichever of the others is nearest.

    Args:
        features: Shape ``(rows, width)``.
        count: Clusters to look for.
        seed: Seed of K-means.
        smallest: Share of the rows that a cluster must have to stay.

    Returns:
        ``count`` clusters or fewer.
    """
    if count == 1:
        return Clustering(features.mean(0, keepdims=True), np.zeros(len(features), dtype=np.int64))
    from sklearn.cluster import MiniBatchKMeans  # 140 MiB, which only a search with iHAS needs

    means = MiniBatchKMeans(min(count, len(features)), random_state=seed, n_init=3, batch_size=4096)
    with warnings.catch_warnings():  # of fewer distinct rows than clusters: those that stay empty are given up below
        warnings.simplefilter("ignore")
        means.fit(features)
    return merge_small(features, np.asarray(means.cluster_centers_, dtype=features.dtype), smallest)


def merge_small(features: Floats, centroids: Floats, smallest: float = SMALLEST) -> Clustering:
    """Takes away the centroid of the smallest cluster until every cluster has its share of the rows."""
    while True:
        labels = nearest(features, centroids)
        counts = np.bincount(labels, minlength=len(centroids))
        least = int(counts.argmin())
        if len(centroids) == 1 or counts[least] >= smallest * len(features):
            return Clustering(centroids, labels)
        centroids = np.delete(centroids, least, axis=0)


def open_shares(open_: npt.NDArray[np.bool_], labels: Ints, count: int) -> npt.NDArray[np.float64]:
    """Share of every cluster's rows in which each gate is open.

    Args:
        open_: Whether z_det > 0.5, shape ``(rows, fields, D)``.
        labels: Cluster of every row.
        count: Number of clusters.

    Returns:
        Shape ``(count, fields, D)``; 0 in a cluster without rows.
    """
    total = np.zeros((count, *open_.shape[1:]))
    for c in range(count):
        if (labels == c).any():
            total[c] = open_[labels == c].mean(0)
    return total
