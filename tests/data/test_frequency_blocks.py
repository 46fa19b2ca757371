from __future__ import annotations

import json

import numpy as np
import pytest

from optuna_aes.data.blocks import Partition, partition, value_counts
from optuna_aes.data.dataset import PAD, FieldSpec, Schema
from optuna_aes.errors import InputError

SCHEMA = Schema(
    (FieldSpec("user", "categorical", 9), FieldSpec("tags", "multi", 4, width=2), FieldSpec("age", "numeric", 5))
)


def ranked_ids() -> np.ndarray:
    """User k > 0 occurs 2^(9 − k) times, tag k > 0 is in 600, 60, 6 rows; ages are not ranked."""
    rows = 1000
    user = np.zeros(rows, dtype=np.int32)
    user[:510] = np.repeat(np.arange(1, 9), [2 ** (9 - k) for k in range(1, 9)])
    tags = np.full((rows, 2), PAD, dtype=np.int32)
    tags[:600, 0] = 1
    tags[:60, 1] = 2
    tags[600:606, 0] = 3
    age = np.resize([1, 4, 4, 4, 2], rows).astype(np.int32)
    return np.column_stack([user, tags, age]).astype(np.int32)


def labels(found: Partition, field: int) -> list[str]:
    """The block of every row of a field."""
    return [found.names[k] for f, start, stop, k in found.pieces if f == field for _ in range(start, stop)]


def test_values_are_counted_without_padding() -> None:
    counts = value_counts(SCHEMA, ranked_ids())
    assert counts[0].tolist() == [490, 256, 128, 64, 32, 16, 8, 4, 2]
    assert counts[1].tolist() == [0, 600, 60, 6]
    assert counts[2].tolist() == [0, 200, 200, 0, 600]


def test_a_block_per_field_is_no_partition() -> None:
    assert partition(SCHEMA, ranked_ids(), "field", 3) is None


def test_ranges_of_a_fields_values() -> None:
    found = partition(SCHEMA, ranked_ids(), "frequency", 3)
    assert found is not None
    assert labels(found, 0) == ["user#1"] * 3 + ["user#2"] * 3 + ["user#3"] * 3
    assert labels(found, 1) == ["tags"] * 4  # too few values to divide
    assert labels(found, 2) == ["age"] * 5
    assert found.rows == {"user#1": 3, "user#2": 3, "user#3": 3, "tags": 4, "age": 5}


def test_bands_are_powers_of_ten_over_all_fields() -> None:
    found = partition(SCHEMA, ranked_ids(), "bands", 3)
    assert found is not None
    # The out-of-vocabulary value goes with its neighbour.
    assert labels(found, 0) == ["bands#2"] * 3 + ["bands#1"] * 3 + ["bands#0"] * 3
    assert labels(found, 1) == ["bands#2", "bands#2", "bands#1", "bands#0"]
    assert labels(found, 2) == ["age"] * 5
    assert found.rows == {"bands#2": 5, "bands#1": 4, "bands#0": 4, "age": 5}


def test_shares_divide_the_values_of_all_fields_by_rank() -> None:
    found = partition(SCHEMA, ranked_ids(), "shares", 2)
    assert found is not None
    counts = np.concatenate([c[1:] for c in value_counts(SCHEMA, ranked_ids())[:2]])
    high = np.array([name == "shares#1" for f in (0, 1) for name in labels(found, f)[1:]])
    assert counts[high].min() >= counts[~high].max()
    assert labels(found, 2) == ["age"] * 5


@pytest.mark.parametrize("kind", ["frequency", "shares", "bands"])
def test_pieces_cover_every_field_without_gaps_and_survive_json(kind: str) -> None:
    found = partition(SCHEMA, ranked_ids(), kind, 3)
    assert found is not None
    for at, field in enumerate(SCHEMA.fields):
        mine = [(start, stop) for f, start, stop, _ in found.pieces if f == at]
        assert [a for a, _ in mine] == [0, *(b for _, b in mine[:-1])]
        assert mine[-1][1] == field.cardinality
    assert sum(found.rows.values()) == 18
    assert Partition.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="blocks='rows'"):
        partition(SCHEMA, ranked_ids(), "rows", 3)
