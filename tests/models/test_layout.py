from __future__ import annotations

import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_split

from optuna_aes.data.dataset import FieldSpec, Schema
from optuna_aes.models.layout import FieldLayout


@pytest.mark.parametrize("schema", [PLAIN, WITH_BAG], ids=["plain", "bags"])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_field_has_rows_of_its_own_in_the_order_asked_for(schema: Schema, reverse: bool) -> None:
    order = list(range(len(schema.fields)))[:: -1 if reverse else 1]
    layout = FieldLayout(schema, order)
    ids = ids_of(tiny_split(schema, rows=500))
    rows = layout.rows(ids)
    assert rows.dtype == torch.int32
    start = 0
    for f in order:
        field, columns = schema.fields[f], layout.columns[f]
        assert layout.oov_rows[f] == start
        assert torch.equal(rows[:, columns], ids[:, columns].clamp(min=0) + start)
        start += field.cardinality
    assert layout.total_rows == start
    assert (rows.min(), rows.max()) == (0, start - 1)


def test_rows_that_int32_cannot_count_are_int64() -> None:
    large = Schema((FieldSpec("a", "categorical", 2**31 - 1), FieldSpec("b", "categorical", 5)))
    rows = FieldLayout(large).rows(torch.tensor([[7, 4]], dtype=torch.int32))
    assert rows.tolist() == [[7, 2**31 + 3]]


def test_columns_follow_the_schema() -> None:
    layout = FieldLayout(WITH_BAG, [3, 2, 1, 0])
    assert layout.columns == [slice(0, 1), slice(1, 4), slice(4, 5), slice(5, 7)]
    assert layout.columns_of([3, 0]) == [5, 6, 0]


def test_bags_are_means_of_what_is_in_them() -> None:
    layout = FieldLayout(WITH_BAG)
    ids = torch.tensor([[1, 2, 5, -1, 4, -1, -1], [1, -1, 3, -1, 4, 6, 2]], dtype=torch.int32)
    values = torch.arange(14.0).reshape(2, 7, 1)
    pooled = layout.pool(values, ids).squeeze(2)
    # tags: two values, then one amid padding; shop: an empty bag is zeros, then two values
    assert pooled.tolist() == [[0.0, 1.5, 4.0, 0.0], [7.0, 9.0, 11.0, 12.5]]


def test_some_fields_are_pooled_in_the_order_given() -> None:
    layout = FieldLayout(WITH_BAG)
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    values = torch.randn(40, 7, 3)
    whole = layout.pool(values, ids)
    some = layout.pool(values[:, layout.columns_of([3, 0, 1])], ids, [3, 0, 1])
    assert torch.equal(some, whole[:, [3, 0, 1]])


def test_padding_gets_no_gradient() -> None:
    layout = FieldLayout(WITH_BAG)
    ids = ids_of(tiny_split(WITH_BAG, rows=40))
    values = torch.randn(40, 7, 3, requires_grad=True)
    layout.pool(values, ids).sum().backward()
    assert values.grad is not None
    assert torch.equal((values.grad != 0).all(2), ids != -1)


def test_a_layout_is_no_part_of_a_checkpoint() -> None:
    assert FieldLayout(WITH_BAG).state_dict() == {}
