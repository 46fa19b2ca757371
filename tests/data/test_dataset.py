from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import PLAIN, WITH_BAG, tiny_dataset, tiny_split

from optuna_aes.data.dataset import (
    SPLITS,
    Dataset,
    FieldSpec,
    Schema,
    Split,
    atomic_folder,
    content_fingerprint,
)
from optuna_aes.errors import DataError


def splits(schema: Schema = WITH_BAG) -> dict[str, Split]:
    return {name: tiny_split(schema, rows=30, seed=i) for i, name in enumerate(SPLITS)}


def test_a_schema_goes_through_json() -> None:
    schema = Schema(WITH_BAG.fields, label="click")
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema
    assert schema.cardinalities == {"user": 30, "tags": 12, "item": 50, "shop": 7}
    assert schema.columns == 7


def test_a_schema_of_another_release_is_refused() -> None:
    with pytest.raises(DataError, match=r"format 99.*encode the table again"):
        Schema.from_json({**WITH_BAG.to_json(), "format": 99})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ((), "one or more fields"),
        ((FieldSpec("a", "categorical", 2), FieldSpec("a", "numeric", 2)), "different names"),
        ((FieldSpec("a", "categorical", 0),), "cardinality 0"),
        ((FieldSpec("a", "multi", 2, width=0),), "width 0"),
        ((FieldSpec("a", "categorical", 2, width=2),), "width 2"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(fields: tuple[FieldSpec, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Schema(fields)


def test_a_dataset_is_saved_and_opened_memory_mapped(tmp_path: Path) -> None:
    data = Dataset.from_arrays(WITH_BAG, splits(), facts={"bayes_auc": 0.8})
    saved = data.save(tmp_path / "new" / "data")
    opened = Dataset.open(str(tmp_path / "new" / "data"))
    for other in (saved, opened):
        assert (other.schema, other.fingerprint, other.facts) == (WITH_BAG, data.fingerprint, {"bayes_auc": 0.8})
        assert other.folder == tmp_path / "new" / "data"
        assert other.rows == {"train": 30, "valid": 30, "test": 30}
        for (name, split), (_, mine) in zip(other.splits(), data.splits(), strict=True):
            assert isinstance(split.ids, np.memmap), name
            assert not split.ids.flags.writeable
            assert (split.ids.dtype, split.labels.dtype) == (np.int32, np.uint8)
            np.testing.assert_array_equal(split.ids, mine.ids)
            np.testing.assert_array_equal(split.labels, mine.labels)
    assert content_fingerprint(opened.schema, dict(opened.splits())) == data.fingerprint


def test_saving_again_replaces_the_dataset_and_leaves_nothing_else(tmp_path: Path) -> None:
    tiny_dataset(PLAIN).save(tmp_path / "data")
    opened = Dataset.open(tmp_path / "data")
    again = tiny_dataset(WITH_BAG).save(tmp_path / "data")
    assert again.schema == WITH_BAG
    assert opened.train.ids.shape == (300, 3)  # whoever has the old files open goes on reading them
    assert Dataset.open(tmp_path / "data").save(tmp_path / "data").fingerprint == again.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def change(value: Any, array: str, row: int = 3) -> dict[str, Split]:
    changed = splits()
    split = changed["valid"]
    ids, labels = split.ids.copy(), split.labels.copy()
    (ids if array == "ids" else labels)[row] = value
    changed["valid"] = Split(ids, labels)
    return changed


def test_the_fingerprint_is_that_of_the_content() -> None:
    given = content_fingerprint(WITH_BAG, splits())
    assert content_fingerprint(WITH_BAG, splits()) == given
    strided = {n: Split(np.asfortranarray(s.ids), np.repeat(s.labels, 2)[::2]) for n, s in splits().items()}
    assert content_fingerprint(WITH_BAG, strided) == given
    swapped = splits()
    swapped["train"], swapped["test"] = swapped["test"], swapped["train"]
    moved = splits()  # the same rows in the same order, but cut elsewhere
    train, valid = moved["train"], moved["valid"]
    moved["train"] = Split(train.ids[:-1], train.labels[:-1])
    moved["valid"] = Split(
        np.concatenate([train.ids[-1:], valid.ids]), np.concatenate([train.labels[-1:], valid.labels])
    )
    label = splits()["valid"].labels[3]
    others = [
        content_fingerprint(Schema(WITH_BAG.fields, label="buy"), splits()),
        content_fingerprint(Schema(WITH_BAG.fields[::-1]), splits()),
        content_fingerprint(WITH_BAG, swapped),
        content_fingerprint(WITH_BAG, moved),
        content_fingerprint(WITH_BAG, change(6, "ids")),
        content_fingerprint(WITH_BAG, change(1 - label, "labels")),
    ]
    assert len({given, *others}) == 7


@pytest.mark.parametrize("width", [1, 3])
def test_ids_up_to_the_edges_are_taken(width: int) -> None:
    schema = Schema((FieldSpec("a", "multi" if width > 1 else "categorical", 5, width=width),))
    ids = np.array([[0] * width, [4] * width, [-1 if width > 1 else 0] * width], dtype=np.int32)
    split = Split(ids, np.array([0, 1, 1], dtype=np.uint8))
    assert Dataset.from_arrays(schema, dict.fromkeys(SPLITS, split)).rows["train"] == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (change([30, 0, 0, 0, 0, 0, 0], "ids"), r"valid.ids of field 'user' reach from 0 to 30, outside \[0, 30\)"),
        (change([-1, 0, 0, 0, 0, 0, 0], "ids"), "'user' reach from -1"),
        (change([0, 0, -2, 0, 0, 0, 0], "ids"), "'tags' reach from -2"),
        (change([0, 0, 0, 0, 0, 0, 7], "ids"), "'shop' reach from -1 to 7"),
        (change(2, "labels"), r"valid.labels must be 0 or 1, not \[0, 1, 2\]"),
        (change(1, "labels", slice(None)), "the valid split holds only label 1"),
        ({n: Split(s.ids.astype(np.int64), s.labels) for n, s in splits().items()}, "int32.*not int64"),
        ({n: Split(s.ids[:, 1:], s.labels) for n, s in splits().items()}, r"\(rows, 7\)"),
        ({n: Split(s.ids[:, 0], s.labels) for n, s in splits().items()}, "train.ids must"),
        ({n: Split(s.ids, s.labels[1:]) for n, s in splits().items()}, r"shape \(30,\)"),
        ({n: Split(s.ids, s.labels[:, None]) for n, s in splits().items()}, "train.labels must"),
        ({n: Split(s.ids, s.labels.astype(float)) for n, s in splits().items()}, "uint8.*not float64"),
        ({n: Split(s.ids[:0], s.labels[:0]) for n, s in splits().items()}, "the train split is empty"),
        ({n: s for n, s in splits().items() if n != "test"}, "no 'test'"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, Split], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset.from_arrays(WITH_BAG, wrong)


def damage_schema(folder: Path, **changes: Any) -> None:
    meta = {**json.loads((folder / "schema.json").read_text()), **changes}
    (folder / "schema.json").write_text(json.dumps({k: v for k, v in meta.items() if v is not None}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "schema.json").unlink(),
        lambda f: (f / "schema.json").write_text("{"),
        lambda f: (f / "schema.json").write_text("[]"),
        lambda f: (f / "schema.json").write_bytes(b"\xff\xfe\xff"),
        lambda f: damage_schema(f, format=2),
        lambda f: damage_schema(f, fingerprint=None),
        lambda f: damage_schema(f, fields=None),
        lambda f: damage_schema(f, fields=[{"name": "a"}]),
        lambda f: damage_schema(f, fields=WITH_BAG.to_json()["fields"][:2]),
        lambda f: (f / "valid_ids.npy").unlink(),
        lambda f: (f / "valid_ids.npy").write_bytes(b""),
        lambda f: (f / "valid_ids.npy").write_bytes((f / "valid_ids.npy").read_bytes()[:-8]),
        lambda f: np.save(f / "valid_ids.npy", np.zeros((30, 7))),
        lambda f: np.save(f / "valid_labels.npy", np.zeros(29, dtype=np.uint8)),
        lambda f: np.save(f / "valid_labels.npy", np.array(["x"] * 30, dtype=object)),
    ],
)
def test_a_broken_folder_is_refused_in_one_line(tmp_path: Path, damage: Any) -> None:
    Dataset.from_arrays(WITH_BAG, splits()).save(tmp_path / "data")
    Dataset.open(tmp_path / "data")
    damage(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        Dataset.open(tmp_path / "data")
    assert "encode the table again" in str(caught.value) or "must be" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not an encoded dataset"):
        Dataset.open(tmp_path / "nowhere")


def write_and_fail(target: Path, error: BaseException) -> None:
    with atomic_folder(target) as folder:
        (folder / "half").write_text("written")
        raise error


@pytest.mark.parametrize("error", [KeyError(), KeyboardInterrupt()])
def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_and_fail(tmp_path / "data", error)
    assert list(tmp_path.iterdir()) == []
    fingerprint = tiny_dataset().save(tmp_path / "data").fingerprint
    with pytest.raises(type(error)):
        write_and_fail(tmp_path / "data", error)
    assert Dataset.open(tmp_path / "data").fingerprint == fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_what_is_no_dataset_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("more work")
    for name in ("thesis", "file"):
        with pytest.raises(DataError, match="choose another folder"):
            tiny_dataset().save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "more work"
    (tmp_path / "empty").mkdir()
    assert tiny_dataset().save(tmp_path / "empty").rows["train"] == 300
