from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from optuna_aes.models.delong import AUCParts, difference_error


def scores(seed: int, rows: int = 60, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the scores of two models that agree in part."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(rows) < 0.35).astype(np.uint8)
    labels[:4] = (0, 1, 0, 1)
    common = rng.normal(size=rows) + labels
    a, b = (common + 0.5 * rng.normal(size=rows) for _ in range(2))
    return labels, *((np.round(a), np.round(b)) if ties else (a, b))


def brute_parts(values: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By definition: the kernel ψ(x, y) = [x > y] + ½ [x = y], averaged over rows and over columns."""
    high, low = values[labels == 1], values[labels == 0]
    psi = (high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])
    return psi.mean(1), psi.mean(0)


def brute_error(a: np.ndarray, b: np.ndarray, labels: np.ndarray) -> float:
    """DeLong's covariance matrices S10 and S01 of both models, and the contrast (1, −1)."""
    parts = [brute_parts(v, labels) for v in (a, b)]
    s10, s01 = (np.cov(np.stack([p[i] for p in parts])) for i in (0, 1))
    matrix = s10 / len(parts[0][0]) + s01 / len(parts[0][1])
    contrast = np.array([1.0, -1.0])
    return float(np.sqrt(contrast @ matrix @ contrast))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_parts_are_those_of_the_definition(seed: int, ties: bool) -> None:
    labels, a, _ = scores(seed, ties=ties)
    parts = AUCParts.of(a, labels)
    positives, negatives = brute_parts(a, labels)
    np.testing.assert_allclose(parts.positives, positives, atol=1e-12)
    np.testing.assert_allclose(parts.negatives, negatives, atol=1e-12)
    assert parts.auc == pytest.approx(roc_auc_score(labels, a), abs=1e-12)
    assert parts.negatives.mean() == pytest.approx(parts.auc, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_the_definition(seed: int, ties: bool) -> None:
    labels, a, b = scores(seed, ties=ties)
    found = difference_error(AUCParts.of(a, labels), AUCParts.of(b, labels))
    assert found == pytest.approx(brute_error(a, b, labels), abs=1e-12)
    assert found == difference_error(AUCParts.of(b, labels), AUCParts.of(a, labels))


def test_the_error_is_the_spread_of_resampled_rows() -> None:
    labels, a, b = scores(0, rows=500)
    rng = np.random.default_rng(1)
    high, low = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    differences = []
    for _ in range(600):
        rows = np.concatenate([rng.choice(high, len(high)), rng.choice(low, len(low))])
        parts = [AUCParts.of(v[rows], labels[rows]).auc for v in (a, b)]
        differences.append(parts[0] - parts[1])
    found = difference_error(AUCParts.of(a, labels), AUCParts.of(b, labels))
    assert found == pytest.approx(np.std(differences), rel=0.12)


def test_models_that_agree_are_told_apart_more_surely() -> None:
    labels, a, b = scores(2, rows=400)
    other = np.random.default_rng(3).permutation(b[labels == 1])
    independent = b.copy()
    independent[labels == 1] = other
    paired = difference_error(AUCParts.of(a, labels), AUCParts.of(b, labels))
    assert paired < difference_error(AUCParts.of(a, labels), AUCParts.of(independent, labels))
    assert difference_error(AUCParts.of(a, labels), AUCParts.of(a, labels)) == 0
    # A rank is all that counts.
    assert difference_error(AUCParts.of(a, labels), AUCParts.of(np.exp(a), labels)) == pytest.approx(0)


def test_more_rows_make_it_surer() -> None:
    def error(rows: int) -> float:
        labels, a, b = scores(4, rows=rows)
        return difference_error(AUCParts.of(a, labels), AUCParts.of(b, labels))

    assert error(6400) == pytest.approx(error(1600) / 2, rel=0.2)


def test_half_precision_scores_and_boolean_labels() -> None:
    labels, a, _ = scores(5)
    expected = AUCParts.of(a.astype(np.float32), labels)
    found = AUCParts.of(a.astype(np.float32), labels.astype(bool))
    np.testing.assert_array_equal(found.positives, expected.positives)


def test_one_row_of_a_class_tells_no_error() -> None:
    labels, a, b = np.array([1, 0, 0, 0]), np.arange(4.0), np.arange(4.0)[::-1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(difference_error(AUCParts.of(a, labels), AUCParts.of(b, labels)))
