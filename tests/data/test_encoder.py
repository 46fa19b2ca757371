from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from optuna_aes.data import EncodeOptions, Encoder, encode
from optuna_aes.errors import DataError

Write = Callable[..., Path]
ROWS = {
    "city": ["Rome", "Oslo", "Rome", None, "Kyiv", "", "Oslo", "Rome"],
    "age": [3, 1, 3, 1, 2, 2, 3, 1],
    "price": [1.5, None, 2.5, 3.5, 4.5, float("nan"), 0.5, 9.0],
    "tags": ["a|b", "b", None, "c|c|a", "b", "a", "", "new"],
    "label": [0, 1, 0, 1, 0, 1, 0, 1],
}


@pytest.mark.parametrize("numeric", ["quantile", "log2"])
def test_raw_rows_get_the_ids_of_the_dataset(tmp_path: Path, numeric: str) -> None:
    frame = pl.DataFrame(ROWS)
    for name, part in (("train", frame[:6]), ("valid", frame[4:]), ("test", frame)):
        (tmp_path / "d").mkdir(exist_ok=True)
        part.write_parquet(tmp_path / "d" / f"{name}.parquet")
    options = EncodeOptions(multi=("tags",), numeric=numeric, min_count=2)
    dataset = encode(tmp_path / "d", tmp_path / "out", options=options)
    encoder = Encoder.load(tmp_path / "out")
    assert encoder.schema == dataset.schema
    assert encoder.options == options
    np.testing.assert_array_equal(encoder.transform(frame.drop("label")), dataset.test.ids)
    np.testing.assert_array_equal(encoder.transform(frame[:6]), dataset.train.ids)
    assert encoder.transform(frame).dtype == np.int32
    assert encoder.transform(frame[:0]).shape == (0, dataset.test.ids.shape[1])
    text = frame.with_columns(pl.col("age").cast(pl.String)).reverse()
    np.testing.assert_array_equal(encoder.transform(text), dataset.test.ids[::-1])


def test_the_vocabulary_is_a_table_anyone_can_read(tmp_path: Path) -> None:
    pl.DataFrame(ROWS).select("city", "label").vstack(
        pl.DataFrame({"city": ["Bern"] * 4, "label": [0, 1, 0, 1]})
    ).write_parquet(tmp_path / "t.parquet")
    for name in ("train", "valid", "test"):
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / f"{name}.parquet").write_bytes((tmp_path / "t.parquet").read_bytes())
    encode(tmp_path / "d", tmp_path / "out", options=EncodeOptions(min_count=2))
    table = pl.read_parquet(tmp_path / "out" / "vocabulary.parquet")
    assert table.rows() == [("city", "Bern", 1), ("city", "Rome", 2), ("city", None, 3), ("city", "Oslo", 4)]


def test_avazu_rows_are_encoded_as_they_come(shared_data: Path, tmp_path: Path) -> None:
    text = (shared_data / "format-samples" / "avazu_sample.txt").read_text()
    for i in range(10):
        text = text.replace(",14102100,", f",141021{i:02d},", 8)
    path = tmp_path / "avazu.csv"
    path.write_text(text)
    options = EncodeOptions(drop=("weekday",), fractions=(0.4, 0.3, 0.3))
    dataset = encode(path, tmp_path / "out", options=options)
    ids = Encoder.load(tmp_path / "out").transform(pl.read_csv(path, schema_overrides={"id": pl.String}))
    encoded = np.concatenate([split.ids for _, split in dataset.splits()])
    np.testing.assert_array_equal(np.sort(ids, axis=0), np.sort(encoded, axis=0))


def test_rows_that_do_not_fit_are_refused(tmp_path: Path, write: Write) -> None:
    text = "a,b,label\n" + "".join(f"v{i % 3},{i}.5,{i % 2}\n" for i in range(60))
    encode(write(text), tmp_path / "out")
    encoder = Encoder.load(tmp_path / "out")
    with pytest.raises(DataError, match="no column 'b'"):
        encoder.transform(pl.DataFrame({"a": ["v1"]}))
    with pytest.raises(DataError, match="do not fit the training table") as caught:
        encoder.transform(pl.DataFrame({"a": ["v1"], "b": ["dear"]}))
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no encoder"):
        Encoder.load(tmp_path)
