from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_aes.data import Dataset, FieldSpec, Schema, Split
from optuna_aes.data.dataset import atomic_folder
from optuna_aes.errors import DataError

SCHEMA = Schema((FieldSpec("a", "categorical", 3), FieldSpec("g", "multi", 4, 2)))


def split(ids: Any = ((0, 1, -1), (2, 3, 0)), labels: Any = (0, 1)) -> Split:
    return Split(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.uint8))


def dataset(test: Split | None = None) -> Dataset:
    return Dataset.from_arrays(
        SCHEMA,
        {"train": split(), "valid": split(), "test": split() if test is None else test},
        facts={"bayes_auc": 0.8},
    )


def test_what_is_saved_is_what_is_opened(tmp_path: Path) -> None:
    made = dataset()
    saved = made.save(tmp_path / "d")
    assert (saved.schema, saved.fingerprint, saved.facts) == (SCHEMA, made.fingerprint, {"bayes_auc": 0.8})
    assert saved.folder == tmp_path / "d"
    for (_, before), (_, after) in zip(made.splits(), saved.splits(), strict=True):
        assert isinstance(after.ids, np.memmap)
        np.testing.assert_array_equal(before.ids, after.ids)
        np.testing.assert_array_equal(before.labels, after.labels)


def test_the_fingerprint_follows_every_part_of_the_content() -> None:
    same = dataset().fingerprint
    assert dataset().fingerprint == same
    assert dataset(split(ids=((0, 1, -1), (1, 3, 0)))).fingerprint != same
    assert dataset(split(labels=(1, 0))).fingerprint != same
    renamed = Schema((FieldSpec("b", "categorical", 3), SCHEMA.fields[1]))
    parts = {name: split() for name in ("train", "valid", "test")}
    assert Dataset.from_arrays(renamed, parts).fingerprint != same


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (split(ids=((0, 1), (2, 3))), "test.ids must be int32 of shape"),
        (split(labels=(0, 1, 1)), "test.labels must be uint8 of shape"),
        (split(labels=(0, 2)), "test.labels must be 0 or 1"),
        (split(labels=(1, 1)), "test split holds only label 1"),
        (split(ids=np.empty((0, 3)), labels=()), "test split is empty"),
        (split(ids=((-1, 1, 0), (2, 3, 0))), "field 'a' reach from -1 to 2"),
        (split(ids=((0, 1, 0), (2, 4, 0))), "field 'g' reach from 0 to 4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(bad: Split, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(bad)


def test_folders_that_are_no_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not an encoded dataset"):
        Dataset.open(tmp_path)
    folder = dataset().save(tmp_path / "d").folder
    assert folder is not None
    meta = json.loads((folder / "schema.json").read_text())
    (folder / "schema.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(DataError, match="format 99, this release reads 1"):
        Dataset.open(folder)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "d"
    with suppress(KeyError), atomic_folder(target) as folder:
        (folder / "half").write_text("x")
        raise KeyError
    assert not list((tmp_path / "sub").iterdir())
    with pytest.raises(DataError, match=r"No space left on device.*make room"), atomic_folder(target):
        raise OSError(28, "No space left on device")
    with atomic_folder(target) as folder:
        (folder / "whole").write_text("x")
        assert not target.exists()
    assert [f.name for f in target.parent.iterdir()] == ["d"]
    assert (target / "whole").exists()
