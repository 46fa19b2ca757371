from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optuna_aes.data import Dataset, EncodeOptions, dataset_for
from optuna_aes.errors import DataError

TABLE = "x,label\n" + "".join(f"{i % 9},{i % 2}\n" for i in range(100))


class Counter:
    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        self.reads += stage == "read"


def test_a_table_is_encoded_once_until_it_or_an_option_changes(write: Callable[..., Path], tmp_path: Path) -> None:
    count = Counter()
    path = write(TABLE)

    def open_dataset(**options: Any) -> Dataset:
        return dataset_for(path, cache_dir=tmp_path / "cache", options=EncodeOptions(**options), progress=count)

    first = open_dataset()
    assert first.folder is not None
    assert first.folder.name.startswith("table-")
    assert open_dataset().fingerprint == first.fingerprint
    assert count.reads == 1
    open_dataset(seed=1)
    assert count.reads == 2
    os.utime(path, ns=(1, 1))
    open_dataset()
    assert count.reads == 3
    path.write_text(TABLE + "1,0\n")
    assert open_dataset().fingerprint != first.fingerprint
    assert count.reads == 4


def test_a_damaged_cache_is_made_anew(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(TABLE)
    first = dataset_for(path, cache_dir=tmp_path / "cache")
    assert first.folder is not None
    (first.folder / "test_ids.npy").unlink()
    assert dataset_for(path, cache_dir=tmp_path / "cache").fingerprint == first.fingerprint


def test_an_encoded_folder_is_opened_as_it_is(write: Callable[..., Path], tmp_path: Path) -> None:
    first = dataset_for(write(TABLE), cache_dir=tmp_path / "cache")
    assert first.folder is not None
    again = dataset_for(first.folder, cache_dir=tmp_path / "unused")
    assert again.folder == first.folder
    assert not (tmp_path / "unused").exists()


def test_a_missing_table_is_an_error_and_makes_no_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        dataset_for(tmp_path / "none.csv", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
