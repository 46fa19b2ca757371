from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from optuna_aes.data import Dataset, EncodeOptions, encode
from optuna_aes.data.dataset import content_fingerprint
from optuna_aes.data.sources import blocks
from optuna_aes.errors import DataError

Write = Callable[..., Path]
TABLE = "user,price,g,t,label\n" + "".join(
    f"u{i % 7},{i * 0.5},{'a|b' if i % 3 else 'c'},{1000 - i},{i % 2}\n" for i in range(200)
)
MULTI = EncodeOptions(multi=("g",))


def test_a_table_becomes_a_dataset_folder(write: Write, tmp_path: Path) -> None:
    dataset = encode(write(TABLE), tmp_path / "out", options=MULTI)
    assert dataset.rows == {"train": 160, "valid": 20, "test": 20}
    assert [f.name for f in dataset.schema.fields] == ["user", "price", "g", "t"], "in the file's order"
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == sorted(
        [f"{s}_{a}.npy" for s in ("train", "valid", "test") for a in ("ids", "labels")]
        + ["schema.json", "encoder.json", "vocabulary.parquet"]
    )
    # The same arrays pass the checks of a dataset made in memory, and have the same fingerprint.
    again = Dataset.from_arrays(dataset.schema, dict(dataset.splits()))
    assert again.fingerprint == dataset.fingerprint == content_fingerprint(dataset.schema, dict(dataset.splits()))


def test_the_fingerprint_is_of_the_content(write: Write, tmp_path: Path) -> None:
    def fingerprint(text: str, **options: Any) -> str:
        name = f"{len(list(tmp_path.iterdir()))}.csv"
        return encode(write(text, name), tmp_path / "out", options=EncodeOptions(**options)).fingerprint

    same = fingerprint(TABLE)
    assert fingerprint(TABLE) == same
    others = [
        fingerprint(TABLE, seed=1),
        fingerprint(TABLE, min_count=24, drop=("t",)),
        fingerprint(TABLE.replace("199", "7", 1).replace(",0\n", ",1\n", 1)),
    ]
    assert len({same, *others}) == 4


def test_labels_stay_with_their_rows(write: Write, tmp_path: Path) -> None:
    text = "x,y,label\n" + "".join(f"{i % 5},{i},{int(i % 5 == 0)}\n" for i in range(300))
    dataset = encode(write(text), tmp_path / "out", options=EncodeOptions(drop=("y",)))
    for _, split in dataset.splits():
        zero = {int(v) for v in split.ids[split.labels == 1, 0]}
        assert len(zero) == 1
        assert zero.isdisjoint(split.ids[split.labels == 0, 0].tolist())


def test_batches_do_not_show(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(TABLE)
    whole = encode(path, tmp_path / "whole", options=MULTI).fingerprint
    monkeypatch.setattr(blocks.read_blocks, "__kwdefaults__", {"size": 300})
    assert encode(path, tmp_path / "parts", options=MULTI).fingerprint == whole


def test_csv_and_parquet_give_the_same_ids(write: Write, tmp_path: Path) -> None:
    path = write(TABLE)
    pl.read_csv(path).write_parquet(tmp_path / "t.parquet")
    fingerprints = {encode(p, tmp_path / "out", options=MULTI).fingerprint for p in (path, tmp_path / "t.parquet")}
    assert len(fingerprints) == 1


def test_a_time_split_is_ordered_and_its_column_no_field(write: Write, tmp_path: Path) -> None:
    rows = [f"{999 - i},{i % 2}" for i in range(100)]
    text = "t,x,label\n" + "".join(f"{r.split(',')[0]},{r}\n" for r in rows)
    options = EncodeOptions(split="time:t", numeric_columns=("x",), buckets=80)
    dataset = encode(write(text), tmp_path / "out", options=options)
    assert list(dataset.schema.cardinalities) == ["x"]
    assert dataset.rows == {"train": 80, "valid": 10, "test": 10}
    # The file runs backwards in time: its last rows, the smallest x, train.
    np.testing.assert_array_equal(dataset.train.ids[:, 0], np.arange(80, 0, -1))
    assert (dataset.test.ids == 80).all(), "later than all of training"


def test_given_splits_keep_their_rows(encode_splits: Callable[..., Dataset]) -> None:
    dataset = encode_splits({"x": ["a", "b", "a", "b"]}, {"x": ["b", "a", "a"]})
    assert dataset.rows == {"train": 4, "valid": 3, "test": 3}
    np.testing.assert_array_equal(dataset.test.ids[:, 0], [2, 1, 1])


def test_adult_has_its_own_test_rows(shared_data: Path, tmp_path: Path) -> None:
    options = EncodeOptions(numeric_columns=("age", "fnlwgt", "capital_gain", "capital_loss", "hours_per_week"))
    dataset = encode(shared_data / "adult", tmp_path / "out", options=options)
    assert dataset.rows == {"train": 28_943, "valid": 3_618, "test": 16_281}
    assert len(dataset.schema.fields) == 14
    assert dataset.schema.cardinalities["fnlwgt"] == 33
    assert dataset.schema.cardinalities["sex"] == 3
    assert max(dataset.schema.cardinalities.values()) == 43


def test_movielens_by_time(shared_data: Path, tmp_path: Path) -> None:
    dataset = encode(shared_data / "ml-latest-small", tmp_path / "out", options=EncodeOptions(split="time:timestamp"))
    kinds = {f.name: f.kind for f in dataset.schema.fields}
    assert kinds == {"userId": "categorical", "movieId": "categorical", "genres": "multi", "year": "categorical"}
    assert sum(dataset.rows.values()) == 100_836
    assert np.mean(dataset.test.ids[:, 0] == 0) > 0.5, "most late raters are new"


def test_format_samples(shared_data: Path, tmp_path: Path) -> None:
    criteo = encode(shared_data / "format-samples" / "criteo_sample.txt", tmp_path / "c")
    assert [f.kind for f in criteo.schema.fields] == ["numeric"] * 13 + ["categorical"] * 26
    options = EncodeOptions(drop=("hour_of_day", "weekday"), fractions=(0.4, 0.3, 0.3))
    avazu = encode(shared_data / "format-samples" / "avazu_sample.txt", tmp_path / "a", options=options)
    assert len(avazu.schema.fields) == 21
    assert avazu.schema.label == "click"


def test_progress_reaches_its_ends(write: Write, tmp_path: Path) -> None:
    path = write(TABLE)
    calls: list[tuple[str, int, int | None]] = []
    encode(path, tmp_path / "out", progress=lambda *call: calls.append(call))
    size = path.stat().st_size
    assert calls == [("read", size, size), ("fit", 200, 200), ("write", 200, 200)]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("x,label\n", {}, "holds no rows"),
        ("x,y\n1,0\n", {}, "no label column 'label'"),
        (TABLE.replace(",1\n", ",2\n"), {}, "'label' is '2' in row 2: a label must be 0 or 1"),
        (TABLE.replace(",1\n", ",\n"), {}, "'label' is missing in row 2"),
        (TABLE.replace(",1\n", ",0\n"), {}, "'label' is 0 in all 160 rows of the train split"),
        (TABLE, {"fractions": (0.998, 0.001, 0.001)}, "the valid split has no rows"),
        (TABLE.replace("a|b", "c"), {}, r"'g' held one value in all 160 training rows .*drop=\('g',\)"),
        (TABLE.replace("a|b", "c"), {"multi": ("g",)}, "'g' held one value"),
        ("x,label\n" + "1.5,0\n1.5,1\n" * 50, {}, "'x' held one value"),
        ("x,label\n" + ",0\n,1\n" * 50, {}, "'x' held one value"),
        (TABLE, {"min_count": 2}, "no value of 't' occurs min_count times"),
        (TABLE, {"split": "time:g"}, "time column 'g' is 'c' in row 1, neither a number nor a date"),
        (TABLE + "u1,2\n", {}, "line 202 has 2 values for 5 columns"),
        (TABLE.encode() + b"\xff,1,a,1,1\n", {}, "line 202 holds bytes that are not UTF-8"),
        (TABLE + "u1,dear,a,1,1\n", {"numeric_columns": ("price",)}, "numeric_columns names 'price', which holds text"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    write: Write, tmp_path: Path, text: str | bytes, options: dict[str, Any], message: str
) -> None:
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        encode(path, tmp_path / "sub" / "out", options=EncodeOptions(**options))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sub").exists() or not list((tmp_path / "sub").iterdir())


def test_an_interrupt_leaves_nothing_behind_and_the_old_dataset_in_place(write: Write, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int | None) -> None:
        if stage == "write":
            raise KeyboardInterrupt

    path = write(TABLE)
    before = encode(path, tmp_path / "d" / "out").fingerprint
    with pytest.raises(KeyboardInterrupt):
        encode(path, tmp_path / "d" / "out", options=EncodeOptions(seed=5), progress=stop)
    assert [f.name for f in (tmp_path / "d").iterdir()] == ["out"]
    assert Dataset.open(tmp_path / "d" / "out").fingerprint == before


def test_a_folder_of_something_else_is_never_replaced(write: Write, tmp_path: Path) -> None:
    precious = write("precious", "home/diary.txt")
    with pytest.raises(DataError, match="is no encoded dataset: choose another folder"):
        encode(write(TABLE), precious.parent)
    assert precious.read_text() == "precious"


MEASURE = """
import sys
from pathlib import Path
from optuna_aes.data import EncodeOptions, encode

def peak():
    return next(int(l.split()[1]) * 1024 for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))

table, out = map(Path, sys.argv[1:])
before = peak()
encode(table, out)
print(peak() - before, sum(f.stat().st_size for f in out.glob("*.npy")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_peak_memory_stays_under_three_times_the_encoded_size(tmp_path: Path) -> None:
    """Growth of the peak resident set (VmHWM) over what the imports took, in a fresh process."""
    rows = 1_200_000
    rng = np.random.default_rng(0)
    ids = {f"c{i}": rng.zipf(1.3, rows).clip(0, 10 ** (1 + i % 6)) for i in range(12)}
    frame = pl.DataFrame(ids).select(pl.format("value{}", pl.col(c)).alias(c) for c in ids)
    frame.with_columns(label=pl.Series(rng.integers(0, 2, rows))).write_csv(tmp_path / "t.csv")
    del frame, ids
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "t.csv"), str(tmp_path / "out")]
    growth, encoded = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert (tmp_path / "t.csv").stat().st_size > encoded > 55e6
    assert growth < 3 * encoded, f"peak grew by {growth / 1e6:.0f} MB for {encoded / 1e6:.0f} MB of ids"
    print(f"peak grew by {growth / 1e6:.0f} MB for {encoded / 1e6:.0f} MB of ids")
