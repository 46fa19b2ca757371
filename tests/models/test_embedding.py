from __future__ import annotations

import pytest
import torch
from helpers import PLAIN, WITH_BAG, ids_of, tiny_split
from torch import Tensor, nn

from optuna_aes.data.dataset import PAD, Schema
from optuna_aes.errors import InputError
from optuna_aes.models.embedding import MixedEmbedding

CASES = [
    (PLAIN, {"user": 4, "item": 2, "hour": 4}),
    (PLAIN, {"user": 3, "item": 3, "hour": 3}),
    (PLAIN, {"user": 0, "item": 8, "hour": 1}),
    (WITH_BAG, {"user": 2, "tags": 8, "item": 2, "shop": 2}),
    (WITH_BAG, {"user": 0, "tags": 4, "item": 0, "shop": 1}),
    (WITH_BAG, {"user": 4, "tags": 0, "item": 2, "shop": 0}),
]


def make(schema: Schema, sizes: dict[str, int], **kwargs: object) -> MixedEmbedding:
    torch.manual_seed(0)
    embedding = MixedEmbedding(schema, sizes, dim=8, std=1.0, **kwargs)  # type: ignore[arg-type]
    if embedding.linear is not None:
        embedding.linear.weight.normal_()
    return embedding


def separate_tables(
    embedding: MixedEmbedding, schema: Schema
) -> tuple[dict[str, nn.Embedding], dict[str, nn.Embedding]]:
    """The same weights as one nn.Embedding per field, and one of width 1 per field."""
    tables, linear = {}, {}
    for (size, fields), start in zip(embedding.groups, embedding.starts, strict=True):
        for f in fields:
            low = embedding.layout.oov_rows[f] - start
            weight = embedding.tables[str(size)].weight[low : low + schema.fields[f].cardinality]
            tables[schema.fields[f].name] = nn.Embedding.from_pretrained(weight.clone(), freeze=False)
    for f, field in enumerate(schema.fields):
        low = embedding.layout.oov_rows[f]
        if embedding.linear is not None:
            weight = embedding.linear.weight[low : low + field.cardinality]
            linear[field.name] = nn.Embedding.from_pretrained(weight.clone(), freeze=False)
    return tables, linear


def bag_mean(table: nn.Embedding, ids: Tensor) -> Tensor:
    """Sample by sample: the mean of the rows that are there, zeros for none."""
    samples = []
    for row in ids.long():
        present = row[row != PAD]
        samples.append(table(present).mean(0) if len(present) else torch.zeros(table.embedding_dim))
    return torch.stack(samples)


def reference(
    embedding: MixedEmbedding, schema: Schema, tables: dict[str, nn.Embedding], ids: Tensor
) -> dict[str, Tensor]:
    columns = embedding.layout.columns
    return {
        f.name: bag_mean(tables[f.name], ids[:, columns[i]]) for i, f in enumerate(schema.fields) if f.name in tables
    }


@pytest.mark.parametrize(("schema", "sizes"), CASES)
def test_equals_one_table_per_field_with_and_without_gradients(schema: Schema, sizes: dict[str, int]) -> None:
    embedding = make(schema, sizes, first_order=True)
    tables, linear = separate_tables(embedding, schema)
    ids = ids_of(tiny_split(schema, rows=60))
    names = [f.name for f in schema.fields]
    expected = reference(embedding, schema, tables, ids)
    expected_linear = sum(reference(embedding, schema, linear, ids).values()).squeeze(1)
    with torch.no_grad():
        still, still_sum = embedding(ids)
    groups, linear_sum = embedding(ids)
    assert [g.shape for g in groups] == [(60, fields, width) for fields, width in embedding.widths]
    torch.testing.assert_close(linear_sum, expected_linear)
    torch.testing.assert_close(still_sum, expected_linear)
    seen = set()
    for group, quiet, (size, fields) in zip(groups, still, embedding.groups, strict=True):
        for at, f in enumerate(fields):
            assert sizes[names[f]] == size
            torch.testing.assert_close(group[:, at], expected[names[f]])
            torch.testing.assert_close(quiet[:, at], expected[names[f]])
            seen.add(names[f])
    assert seen == {name for name, size in sizes.items() if size > 0}

    # Gradients of a loss that tells every entry apart
    weights = [torch.randn_like(g) for g in groups]
    (sum((g * w).sum() for g, w in zip(groups, weights, strict=True)) + linear_sum.square().sum()).backward()
    loss = expected_linear.square().sum()
    for w, (_, fields) in zip(weights, embedding.groups, strict=True):
        for at, f in enumerate(fields):
            loss = loss + (expected[names[f]] * w[:, at]).sum()
    loss.backward()
    for (size, fields), start in zip(embedding.groups, embedding.starts, strict=True):
        table = embedding.tables[str(size)]
        dense = torch.zeros_like(table.weight).index_copy(0, table.touched.rows, table.touched.leaf.grad)
        torch.testing.assert_close(dense, torch.cat([tables[names[f]].weight.grad for f in fields]))
        assert start + len(dense) <= embedding.layout.total_rows
    in_order = sorted(range(len(names)), key=lambda f: embedding.layout.oov_rows[f])
    touched = embedding.linear.touched
    dense = torch.zeros_like(embedding.linear.weight).index_copy(0, touched.rows, touched.leaf.grad)
    torch.testing.assert_close(dense, torch.cat([linear[names[f]].weight.grad for f in in_order]))


@pytest.mark.parametrize(("schema", "sizes"), CASES)
def test_tables_hold_what_the_sizes_say(schema: Schema, sizes: dict[str, int]) -> None:
    embedding = make(schema, sizes)
    assert sum(t.weight.numel() for t in embedding.tables.values()) == sum(
        f.cardinality * sizes[f.name] for f in schema.fields
    )
    assert embedding(ids_of(tiny_split(schema, rows=3)))[1] is None


def test_out_of_vocabulary_rows_start_at_zero() -> None:
    embedding = make(WITH_BAG, {"user": 2, "tags": 8, "item": 2, "shop": 2})
    tables, _ = separate_tables(embedding, WITH_BAG)
    for table in tables.values():
        assert not table.weight[0].any()
        assert (table.weight[1:] != 0).any(dim=1).all()


def test_linear_alignment_maps_each_smaller_field_by_a_matrix_of_its_own() -> None:
    sizes = {"user": 2, "tags": 8, "item": 2, "shop": 4}
    embedding = make(WITH_BAG, sizes, align="linear")
    tables, _ = separate_tables(embedding, WITH_BAG)
    ids = ids_of(tiny_split(WITH_BAG, rows=50))
    expected = reference(embedding, WITH_BAG, tables, ids)
    groups, _ = embedding(ids)
    assert {name: p.shape for name, p in embedding.maps.items()} == {"2": (2, 2, 8), "4": (1, 4, 8)}
    assert embedding.widths == [(2, 8), (1, 8), (1, 8)]
    torch.testing.assert_close(groups[0][:, 0], expected["user"] @ embedding.maps["2"][0])
    torch.testing.assert_close(groups[0][:, 1], expected["item"] @ embedding.maps["2"][1])
    torch.testing.assert_close(groups[1][:, 0], expected["shop"] @ embedding.maps["4"][0])
    torch.testing.assert_close(groups[2][:, 0], expected["tags"])


@pytest.mark.parametrize("schema", [PLAIN, WITH_BAG], ids=["plain", "bags"])
def test_all_fields_dropped_leaves_an_empty_group(schema: Schema) -> None:
    embedding = make(schema, dict.fromkeys(schema.cardinalities, 0), first_order=True)
    groups, linear = embedding(ids_of(tiny_split(schema, rows=5)))
    assert [g.shape for g in groups] == [(5, 0, 0)]
    assert linear.shape == (5,)
    assert embedding.widths == []


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({"user": 2, "item": 2}, {}, "no size for field 'hour'"),
        ({"user": 2, "item": 2, "hour": -1}, {}, r"sizes\['hour'\]=-1"),
        ({"user": 2, "item": 9, "hour": 1}, {"align": "linear"}, "cannot map to dim=8"),
    ],
)
def test_sizes_that_make_no_table_are_refused(sizes: dict[str, int], options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make(PLAIN, sizes, **options)
