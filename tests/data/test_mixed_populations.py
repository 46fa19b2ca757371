from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from optuna_aes.data.dataset import Dataset
from optuna_aes.data.synthetic import MIXED_FIELDS, PlantedField, planted
from optuna_aes.errors import InputError

FIELDS = (
    PlantedField("by", 8, 0, main=0.0, zipf=0.0),
    PlantedField("first", 20, 0, main=1.5, population=0),
    PlantedField("second", 20, 0, main=1.5, population=1),
)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted(FIELDS, rows=(12_000, 1000, 4000), by="by", seed=3)


def strength(dataset: Dataset, column: int, value: int) -> float:
    """Test AUC of one field's first-order effects among the rows with one value of the first field."""
    train, test = (split.ids[:, 0] == value for split in (dataset.train, dataset.test))
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = LogisticRegression(C=0.3).fit(
        encoder.fit_transform(dataset.train.ids[train][:, [column]]), dataset.train.labels[train]
    )
    scores = model.decision_function(encoder.transform(dataset.test.ids[test][:, [column]]))
    return float(roc_auc_score(dataset.test.labels[test], scores))


def test_each_population_uses_its_own_fields(data: Dataset) -> None:
    strengths = np.array([[strength(data, column, value) for column in (1, 2)] for value in range(1, 9)])
    uses_first = strengths[:, 0] > strengths[:, 1]
    assert uses_first.sum() == 4  # of neighbours in frequency one goes here, one there
    assert (np.sort(strengths, axis=1)[:, 1] > 0.65).all()
    assert (np.sort(strengths, axis=1)[:, 0] < 0.58).all()


def test_facts_and_bayes(data: Dataset) -> None:
    assert data.facts["populations"] == {"by": None, "first": 0, "second": 1}
    assert 0.7 < data.facts["bayes_auc"] < 1


def test_without_populations_nothing_is_drawn_otherwise() -> None:
    plain = tuple(PlantedField(f.name, f.values, f.rank, main=f.main, zipf=f.zipf) for f in FIELDS)
    one, two = planted(plain, rows=(500, 100, 100)), planted(FIELDS, rows=(500, 100, 100), by="by")
    np.testing.assert_array_equal(one.train.ids, two.train.ids)
    assert "populations" not in one.facts


@pytest.mark.parametrize(
    ("fields", "by", "text"),
    [
        (FIELDS, None, "needs by="),
        (FIELDS, "first", "by='first'"),
        (FIELDS, "nobody", "by='nobody'"),
        ((*FIELDS, PlantedField("odd", 5, 1, population=2)), "by", "population of a planted field"),
    ],
)
def test_populations_that_cannot_be_are_refused(fields: tuple[PlantedField, ...], by: str | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        planted(fields, by=by)


def test_the_ready_made_fields_can_be_planted() -> None:
    assert planted(MIXED_FIELDS, rows=(2000, 200, 200), by="app").facts["noise"] == ["session"]
