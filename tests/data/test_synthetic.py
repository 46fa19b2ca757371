from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import OneHotEncoder

from optuna_aes.data.dataset import OOV, Dataset, Split
from optuna_aes.data.synthetic import DEMO_FIELDS, PlantedField, bayes_share, planted
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer

FIELDS = (
    PlantedField("user", 300, 2),
    PlantedField("item", 80, 2),
    PlantedField("hour", 24, 1),
    PlantedField("noise", 200, 0, main=0.0),
    PlantedField("main", 30, 0, main=0.7),
)
ROWS = (30_000, 6_000, 8_000)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return planted(FIELDS, rows=ROWS)


def splits(dataset: Dataset) -> dict[str, Split]:
    return {"train": dataset.train, "valid": dataset.valid, "test": dataset.test}


def test_the_seed_decides(data: Dataset) -> None:
    again, other = planted(FIELDS, rows=ROWS), planted(FIELDS, rows=ROWS, seed=1)
    assert again.fingerprint == data.fingerprint
    assert again.facts == data.facts
    assert other.fingerprint != data.fingerprint
    for name, split in splits(data).items():
        np.testing.assert_array_equal(split.ids, splits(again)[name].ids)
        np.testing.assert_array_equal(split.labels, splits(again)[name].labels)


def test_shapes_and_facts(data: Dataset) -> None:
    assert [len(s.labels) for s in splits(data).values()] == list(ROWS)
    assert [f.name for f in data.schema.fields] == ["user", "item", "hour", "noise", "main"]
    assert data.facts["ranks"] == {"user": 2, "item": 2, "hour": 1, "noise": 0, "main": 0}
    assert data.facts["noise"] == ["noise"]
    assert data.train.labels.mean() == pytest.approx(0.3, abs=0.02)
    assert 0.7 < data.facts["bayes_auc"] < 0.95


def test_ids_are_ranked_by_frequency_in_training_rows(data: Dataset) -> None:
    for column, field in enumerate(data.schema.fields):
        counts = np.bincount(data.train.ids[:, column], minlength=field.cardinality)
        assert counts[OOV] == 0
        assert (counts[1:] > 0).all()
        assert (np.diff(counts[1:]) <= 0).all()
        assert max(s.ids[:, column].max() for s in splits(data).values()) < field.cardinality


def test_frequencies_fall_as_zipf_says() -> None:
    dataset = planted((PlantedField("a", 50, 1, zipf=1.5), PlantedField("b", 50, 1, zipf=0.0)), rows=(60_000, 10, 10))
    steep, flat = (np.bincount(dataset.train.ids[:, c])[1:] for c in (0, 1))
    expected = np.arange(1, 51) ** -1.5
    np.testing.assert_allclose(steep[:10] / 60_000, (expected / expected.sum())[:10], rtol=0.15)
    assert flat.max() < 1.2 * flat.min()


def test_values_that_training_rows_do_not_show_are_out_of_vocabulary() -> None:
    dataset = planted((PlantedField("a", 500, 1), PlantedField("b", 5, 1)), rows=(200, 400, 400))
    assert dataset.schema.fields[0].cardinality == len(np.unique(dataset.train.ids[:, 0])) + 1
    assert (dataset.test.ids[:, 0] == OOV).mean() > 0.05


@pytest.mark.parametrize(("field", "carries"), [("noise", False), ("main", True)])
def test_noise_fields_carry_nothing(data: Dataset, field: str, carries: bool) -> None:
    column = [f.name for f in data.schema.fields].index(field)
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = LogisticRegression(C=0.1, max_iter=200)
    model.fit(encoder.fit_transform(data.train.ids[:, [column]]), data.train.labels)
    scores = model.decision_function(encoder.transform(data.test.ids[:, [column]]))
    assert (roc_auc_score(data.test.labels, scores) > 0.53) == carries


def test_no_model_beats_the_true_probabilities_and_a_fair_one_comes_near(data: Dataset) -> None:
    model = CTRModel(data.schema, {f.name: 4 for f in data.schema.fields}, dim=4, options=ModelOptions(init_std=0.1))
    options = TrainOptions(epochs=4, batch_size=1024, lr=0.01, l2=1e-3, schedule="cosine", patience=0)
    Trainer(model, data.train, data.valid, options).run()
    reached = auc(predict(model, data.test), data.test.labels)
    assert 0.7 < bayes_share(reached, data.facts["bayes_auc"]) < 1.0


def test_share_of_what_is_possible() -> None:
    assert bayes_share(0.5, 0.9) == 0.0
    assert bayes_share(0.9, 0.9) == 1.0
    assert bayes_share(0.7, 0.9) == pytest.approx(0.5)


@pytest.mark.parametrize("click_rate", [0.02, 0.8])
def test_the_click_rate_is_roughly_what_was_asked_for(click_rate: float) -> None:
    dataset = planted(FIELDS, rows=(20_000, 100, 500), click_rate=click_rate)
    assert dataset.train.labels.mean() == pytest.approx(click_rate, abs=0.01)


@pytest.mark.parametrize(
    "fields",
    [
        (PlantedField("a", 20, 2), PlantedField("b", 20, 0, main=0.0)),  # a vector with nothing to meet
        (PlantedField("a", 20, 0, main=1.0), PlantedField("b", 20, 0, main=0.0)),
        (PlantedField("a", 20, 1, main=0.0), PlantedField("b", 20, 3, main=0.0)),
    ],
)
def test_any_kind_of_signal_will_do(fields: tuple[PlantedField, ...]) -> None:
    dataset = planted(fields, rows=(2000, 200, 2000))
    assert 0.6 < dataset.facts["bayes_auc"] < 1
    assert dataset.train.labels.mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    ("fields", "given", "text"),
    [
        ((PlantedField("a", 1, 1), PlantedField("b", 5, 1)), {}, "2 or more values"),
        ((PlantedField("a", 5, 0, main=0.0), PlantedField("b", 5, 0, main=0.0)), {}, "needs signal"),
        ((PlantedField("a", 5, 3, main=0.0), PlantedField("b", 5, 0, main=0.0)), {}, "needs signal"),
        ((), {}, "needs signal"),
        (DEMO_FIELDS, {"click_rate": 0.0}, "click_rate=0.0"),
        (DEMO_FIELDS, {"click_rate": float("nan")}, "click_rate=nan"),
        (DEMO_FIELDS, {"rows": (10, 0, 10)}, "rows="),
    ],
)
def test_what_cannot_be_planted_is_refused(
    fields: tuple[PlantedField, ...], given: dict[str, object], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        planted(fields, **given)
