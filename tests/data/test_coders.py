from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from optuna_aes.data import Dataset
from optuna_aes.data.coders import log2_bucket, log2_edges, quantile_edges

Encode = Callable[..., Dataset]


def column(dataset: Dataset, split: str = "train") -> list[int]:
    ids = getattr(dataset, split).ids
    assert ids.shape[1] == 1
    return [int(v) for v in ids[:, 0]]


def test_ids_are_ranked_by_frequency_and_ties_by_value(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": ["b", "c", "b", "a", "z", "z", "z"]})
    assert column(dataset) == [2, 4, 2, 3, 1, 1, 1]
    assert dataset.schema.cardinalities == {"x": 5}


def test_integers_are_categories(encode_splits: Encode) -> None:
    assert column(encode_splits({"x": [7, 7, -1, 900]})) == [1, 1, 2, 3]


def test_the_encoder_sees_training_rows_only(encode_splits: Encode) -> None:
    test = {"x": ["new", "b", "new", "new", "a"]}
    dataset = encode_splits({"x": ["a", "a", "b", "a"]}, test)
    assert column(dataset, "test") == [0, 2, 0, 0, 1]
    assert dataset.schema.cardinalities == {"x": 3}


def test_rare_values_share_the_unknown_id(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": ["a", "a", "a", "b", "b", "c"]}, min_count=2)
    assert column(dataset) == [1, 1, 1, 2, 2, 0]


def test_missing_has_an_id_of_its_own_even_where_it_is_rare(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": ["a", None, "a", "b", "b", "c"]}, {"x": [None, "", "a", "c"]}, min_count=2)
    assert column(dataset) == [1, 3, 1, 2, 2, 0]
    assert column(dataset, "test") == [3, 3, 1, 0], "null and the empty string are both missing"


def test_missing_is_unknown_where_training_never_misses(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": ["a", "b"], "y": [1.0, 2.0]}, {"x": [None, "a"], "y": [None, float("nan")]})
    np.testing.assert_array_equal(dataset.test.ids, [[0, 0], [1, 0]])


def test_numbers_become_buckets_in_order(encode_splits: Encode) -> None:
    values = np.random.default_rng(0).permutation(1000).astype(float)
    dataset = encode_splits({"x": values, "y": values}, buckets=4)
    ids = dataset.train.ids[:, 0]
    assert dataset.schema.fields[0].kind == "numeric"
    np.testing.assert_array_equal(np.bincount(ids), [0, 250, 250, 250, 250])
    np.testing.assert_array_equal(ids, 1 + values // 250)


def test_a_missing_number_has_the_last_id(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": [1.0, None, 3.0, float("nan")]}, {"x": [-9.0, 99.0, None]})
    assert column(dataset) == [1, 3, 2, 3]
    assert column(dataset, "test") == [1, 2, 3]
    assert dataset.schema.cardinalities == {"x": 4}


def test_integers_named_numeric_are_bucketed(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": list(range(100))}, numeric_columns=("x",), buckets=5)
    assert dataset.schema.cardinalities == {"x": 6}


def test_decimals_named_categorical_are_categories(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": [2.5, 2.5, 1.5, None, None, None]}, categorical=("x",))
    assert column(dataset) == [2, 2, 3, 1, 1, 1]


def test_the_sample_of_numbers_is_uniform_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_aes.data.coders import NumericCoder
    from optuna_aes.data.options import EncodeOptions

    values = np.arange(1000, dtype=np.float32)
    whole, parts = (NumericCoder("x", EncodeOptions(buckets=4)) for _ in range(2))
    whole.observe(values, every=7)
    for part in np.array_split(values, 13):
        parts.observe(part, every=7)
    np.testing.assert_array_equal(whole.fit().edges, parts.fit().edges)
    np.testing.assert_allclose(whole.fit().edges, [250, 500, 750], atol=7)


def test_a_frequent_value_has_a_quantile_bucket_to_itself() -> None:
    zeros = np.concatenate([np.zeros(990), np.arange(1, 101)]).astype(np.float32)
    edges = quantile_edges(np.sort(zeros), 10)
    assert edges[0] == 1, "zero is alone below the first edge"
    tops = np.concatenate([-np.arange(1, 101), np.zeros(990)]).astype(np.float32)
    assert quantile_edges(np.sort(tops), 10)[-1] == 0


def test_few_distinct_numbers_have_a_bucket_each() -> None:
    values = np.sort(np.array([5, 5, 5, 1, 9, 9], dtype=np.float32))
    np.testing.assert_array_equal(quantile_edges(values, 3), [5, 9])


def test_log2_buckets_are_those_of_the_criteo_work() -> None:
    values = np.array([-3, -2, -1, 0, 1, 2, 3, 10, 1000], dtype=np.float32)
    expected = [-4, -2, -1, 0, 1, 2, 3 + int(np.log(3) ** 2), 3 + int(np.log(10) ** 2), 3 + int(np.log(1000) ** 2)]
    np.testing.assert_array_equal(log2_bucket(values), expected)


def test_log2_edges_divide_numbers_as_log2_buckets_do() -> None:
    values = np.unique(np.concatenate([np.arange(-300, 3000), np.geomspace(3000, 1e9, 500)])).astype(np.float32)
    edges = log2_edges(values)
    keys = np.unique(log2_bucket(values), return_inverse=True)[1]
    np.testing.assert_array_equal(np.searchsorted(edges, values, side="right"), keys)


def test_log2_is_used_where_asked_for(encode_splits: Encode) -> None:
    dataset = encode_splits({"x": [0.0, 1.0, 2.0, 100.0, 101.0, 1e6]}, numeric="log2")
    assert column(dataset) == [1, 2, 3, 4, 4, 5]


def test_bags_are_ranked_deduplicated_and_padded(encode_splits: Encode) -> None:
    train = {"g": ["a|b", "b", "c|b|c|a", "", None, "b"]}
    dataset = encode_splits(train, {"g": ["new|a|new2|b|c", "|c|", None, "a"]}, multi=("g",))
    assert dataset.schema.fields[0].kind == "multi"
    assert dataset.schema.fields[0].width == 3
    # b 4 times; a 2, missing 2 (the empty string sorts first); c 1
    np.testing.assert_array_equal(
        dataset.train.ids, [[3, 1, -1], [1, -1, -1], [4, 1, 3], [2, -1, -1], [2, -1, -1], [1, -1, -1]]
    )
    np.testing.assert_array_equal(dataset.test.ids, [[0, 3, 0], [4, -1, -1], [2, -1, -1], [3, -1, -1]])


def test_bags_keep_their_first_values(encode_splits: Encode) -> None:
    dataset = encode_splits({"g": ["a b c", "c b a"]}, multi=("g",), separator=" ", max_values=2)
    np.testing.assert_array_equal(dataset.train.ids, [[2, 1], [3, 1]])


def test_lists_in_parquet_are_bags(encode_splits: Encode) -> None:
    dataset = encode_splits({"g": [[1, 2], [2], [], None]})
    np.testing.assert_array_equal(dataset.train.ids, [[3, 2], [2, -1], [1, -1], [1, -1]])
