from __future__ import annotations

import numpy as np

from optuna_aes.strategies.ihas.clusters import cluster, merge_small, nearest, open_shares


def blobs(counts: tuple[int, ...], centres: tuple[tuple[float, float], ...], *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(c, 0.2, (n, 2)) for n, c in zip(counts, centres, strict=True)])


def test_the_nearest_centroid_is_the_nearest() -> None:
    rng = np.random.default_rng(0)
    rows, centroids = rng.normal(size=(50, 3)), rng.normal(size=(4, 3))
    expected = ((rows[:, None] - centroids[None]) ** 2).sum(2).argmin(1)
    np.testing.assert_array_equal(nearest(rows, centroids), expected)


def test_clusters_are_found() -> None:
    rows = blobs((300, 200), ((0, 0), (5, 5)))
    found = cluster(rows, 2)
    assert sorted(np.bincount(found.labels)) == [200, 300]
    np.testing.assert_array_equal(found.labels, nearest(rows, found.centroids))


def test_one_cluster_is_the_mean() -> None:
    rows = blobs((30, 20), ((0, 0), (5, 5)))
    found = cluster(rows, 1)
    np.testing.assert_allclose(found.centroids, rows.mean(0, keepdims=True))
    assert set(found.labels) == {0}


def test_a_small_cluster_goes_to_its_nearest_neighbour() -> None:
    rows = blobs((480, 480, 40), ((0, 0), (9, 0), (7, 0)))
    merged = merge_small(rows, np.array([[0.0, 0.0], [9.0, 0.0], [7.0, 0.0]]))
    assert len(merged.centroids) == 2
    assert np.bincount(merged.labels).tolist() == [480, 520]
    kept = merge_small(rows, np.array([[0.0, 0.0], [9.0, 0.0], [7.0, 0.0]]), smallest=0.03)
    assert len(kept.centroids) == 3


def test_clusters_of_the_same_row_over_and_over_are_one() -> None:
    assert len(cluster(np.ones((40, 2)), 3).centroids) == 1


def test_shares_by_hand() -> None:
    open_ = np.array(
        [  # rows × fields × D
            [[1, 0], [1, 1]],
            [[1, 0], [0, 1]],
            [[0, 0], [0, 1]],
            [[0, 1], [1, 0]],
        ],
        dtype=bool,
    )
    shares = open_shares(open_, np.array([0, 0, 0, 1]), 3)
    np.testing.assert_allclose(shares[0], [[2 / 3, 0], [1 / 3, 1]])
    np.testing.assert_allclose(shares[1], [[0, 1], [1, 0]])
    assert not shares[2].any()
