from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from optuna_aes.errors import InputError
from optuna_aes.models.ranking import group_auc


@pytest.mark.parametrize("decimals", [7, 1, 0])
def test_the_area_is_that_of_scikit_learn_with_ties_and_without(decimals: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 400, generator=generator).round(decimals=decimals)
    scores[3] = 1.5  # no order at all
    scores[4, ::2] = -0.0
    scores[4, 1::2] = 0.0
    labels = (torch.rand(400, generator=generator) < 0.3).float()
    found = group_auc(scores, labels)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [roc_auc_score(labels, row) for row in scores], atol=1e-12)
    assert found[3] == found[4] == 0.5


def test_one_class_has_no_area_and_what_is_no_number_is_refused() -> None:
    assert np.isnan(group_auc(torch.randn(1, 3), torch.ones(3))).all()
    with pytest.raises(InputError, match="not finite"):
        group_auc(torch.tensor([[0.0, float("nan")]]), torch.tensor([0.0, 1.0]))
