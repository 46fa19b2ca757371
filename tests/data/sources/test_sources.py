from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from optuna_aes.data import read_source
from optuna_aes.errors import DataError

Write = Callable[..., Path]
CSV = "a,label\n1,0\n2,1\n"


def test_a_missing_path_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        read_source(tmp_path / "none.csv")


def test_an_unknown_format_is_an_error(write: Write) -> None:
    with pytest.raises(DataError, match="format='excel' is unknown: use one of auto, csv"):
        read_source(write(CSV), format="excel")
    with pytest.raises(DataError, match="neither text nor Parquet"):
        read_source(write(b"\x00\x01\x02", "t.bin"))


def test_parquet_is_known_by_its_content_too(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "table")
    assert read_source(tmp_path / "table").format == "parquet"


def test_formats_of_files_and_folders_do_not_mix(write: Write) -> None:
    path = write(CSV, "d/train.csv")
    with pytest.raises(DataError, match="format='movielens' reads the folder"):
        read_source(path, format="movielens")
    with pytest.raises(DataError, match=r"holds no test\.\* file"):
        read_source(path.parent)
    with pytest.raises(DataError, match=r"holds no train\.\* file"):
        read_source(path.parent.parent)


def test_a_folder_gives_its_split(write: Write) -> None:
    for name in ("train", "valid", "test"):
        write(CSV, f"d/{name}.csv")
    source = read_source(write("notes", "d/README").parent)
    assert [name for name, _ in source.tables] == ["train", "valid", "test"]
    write(CSV, "d/train.tsv")
    with pytest.raises(DataError, match=r"holds train\.csv and train\.tsv"):
        read_source(source.path)


def test_splits_must_have_the_same_columns(write: Write) -> None:
    write(CSV, "d/train.csv")
    folder = write("a,b,label\n1,2,0\n", "d/test.csv").parent
    with pytest.raises(DataError, match=r"column 'b' is in .*test\.csv and not in .*train\.csv"):
        read_source(folder)


def test_kinds_are_those_of_all_splits_together(write: Write) -> None:
    write("a,b,label\n1,2,0\n", "d/train.csv")
    folder = write("label,b,a\n1,x,2.5\n", "d/test.csv").parent
    assert [(c.name, c.kind) for c in read_source(folder).columns] == [
        ("a", "float"),
        ("b", "text"),
        ("label", "integer"),
    ]
