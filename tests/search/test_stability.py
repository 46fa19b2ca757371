from __future__ import annotations

import numpy as np
import pytest

from optuna_aes.search.stability import Agreement, StabilityRow


def test_agreement_is_the_share_of_equal_sizes_over_pairs_of_seeds() -> None:
    one, two, three = {"a": 4, "b": 0}, {"a": 4, "b": 1}, {"a": 2, "b": 1}
    assert Agreement.of([one, one]) == Agreement(1.0, 0.0)
    assert Agreement.of([one, two]) == Agreement(0.5, pytest.approx(0.5 * 2**-0.5))  # log2 of ½ and 1
    found = Agreement.of([one, two, three])
    assert found is not None
    assert found.same == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert found.log2_std == pytest.approx((np.std([2, 2, 1], ddof=1) + np.std([-1, 0, 0], ddof=1)) / 2)


def test_what_cannot_agree_is_left_open() -> None:
    assert Agreement.of([]) is None
    assert Agreement.of([{"a": 1}]) is None
    assert Agreement.mean([None]) is None
    assert Agreement.mean([Agreement(0.5, 1.0), None, Agreement(1.0, 0.0)]) == Agreement(0.75, 0.5)


def test_a_row_holds_both_kinds_by_budget() -> None:
    row = StabilityRow.of("x", {0.1: [{"a": 1}, {"a": 1}]}, {0.1: [{"a": 1}, {"a": 2}]})
    assert row.search == {0.1: Agreement(1.0, 0.0)}
    assert row.whole == {0.1: Agreement(0.0, pytest.approx(2**-0.5))}
    assert row.sizes == {0.1: ({"a": 1}, {"a": 2})}
