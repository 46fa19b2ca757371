"""The formats that are one small module each: Parquet, libfm, Criteo, Avazu, MovieLens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from optuna_aes.data import Source, read_source
from optuna_aes.errors import DataError

Write = Callable[..., Path]
MOVIES = "movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n2,Untitled,(no genres listed)\n"
RATINGS = "userId,movieId,rating,timestamp\n7,1,4.0,100\n7,2,3.5,50\n8,3,5.0,70\n"
TAGS = "userId,movieId,tag,timestamp\n7,1,Fun,1\n8,1,fun ,1\n8,1,pixar,2\n9,1,zebra,2\n"


def rows(source: Source) -> pl.DataFrame:
    names = [c.name for c in source.columns]
    return pl.concat([b.frame for _, t in source.tables for b in t.batches(names)])


def test_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"i": [1, 2], "f": [0.5, None], "t": ["a", None], "g": [["x"], []], "label": [True, False]})
    frame.write_parquet(tmp_path / "t.parquet")
    source = read_source(tmp_path / "t.parquet")
    assert [c.kind for c in source.columns] == ["integer", "float", "text", "list", "text"]
    assert rows(source).equals(frame)
    assert source.size == 2


def test_a_corrupt_parquet_file_is_refused(write: Write) -> None:
    for text in (b"PAR1 no more", b""):
        with pytest.raises(DataError, match=r"t\.parquet cannot be read as Parquet") as caught:
            read_source(write(text, "t.parquet"))
        assert "\n" not in str(caught.value)


def test_libfm(write: Write) -> None:
    source = read_source(write("1 10:1 20:1.0 \n-1 11:1 21:1\n0 11:1 20:1\n", "t.txt"))
    assert source.format == "libfm"
    assert rows(source).rows() == [("1", "10", "20"), ("0", "11", "21"), ("0", "11", "20")]
    assert rows(source).columns == ["label", "f0", "f1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 10:1 20:1\n0 11:1\n", "line 2 has 2 values for 3 columns"),
        ("1 10:1 20:1\n0 11:1 20:0.5\n", "field f1 in line 2 is '20:0.5': every feature must be index:1"),
        ("1 10:1 20\n", "field f1 in line 1 is '20'"),
    ],
)
def test_libfm_refuses_what_it_cannot_tell_apart(write: Write, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows(read_source(write(text, "t.libfm")))


def test_criteo_without_a_header(write: Write) -> None:
    line = "\t".join(["1", *(str(i) for i in range(12)), "", *(f"{i:08x}" for i in range(26))])
    source = read_source(write(line + "\n" + line.replace("1\t0", "0\t-1", 1) + '"\n', "day_0"))
    assert source.format == "criteo"
    names = [c.name for c in source.columns]
    assert (names[0], names[1], names[13], names[14], names[-1]) == ("label", "I1", "I13", "C1", "C26")
    assert {c.kind for c in source.columns[1:14]} == {"float"}
    assert {c.kind for c in source.columns[14:]} == {"text"}
    assert rows(source)["C26"].to_list() == ["00000019", '00000019"'], "a quote is a sign like any other there"


def test_criteo_sample(shared_data: Path) -> None:
    source = read_source(shared_data / "format-samples" / "criteo_sample.txt")
    assert source.format == "criteo"
    frame = rows(source)
    assert frame.shape == (200, 40)
    assert frame["C1"][0] == "05db9164"


def test_avazu_sample(shared_data: Path) -> None:
    source = read_source(shared_data / "format-samples" / "avazu_sample.txt")
    assert (source.format, source.label) == ("avazu", "click")
    frame = rows(source)
    assert frame.height == 100
    assert (frame["hour"][0], frame["hour_of_day"][0], frame["weekday"][0]) == ("14102100", "0", "2")
    assert [c.name for c in source.columns if not c.feature] == ["id", "hour"]


def test_avazu_refuses_other_hours(write: Write) -> None:
    with pytest.raises(DataError, match="hour 'noon' in line 3 is not YYMMDDHH"):
        rows(read_source(write("id,click,hour,C1\n1,0,14102100,a\n2,1,noon,b\n")))


def test_movielens(write: Write) -> None:
    write(MOVIES, "ml/movies.csv")
    write(TAGS, "ml/tags.csv")
    folder = write(RATINGS, "ml/ratings.csv").parent
    source = read_source(folder, tags=2)
    assert source.format == "movielens"
    assert rows(source).rows() == [
        ("7", "1", ["Animation", "Comedy"], "1995", ["fun", "pixar"], "100", True),
        ("7", "2", None, None, None, "50", False),
        ("8", "3", None, None, None, "70", True),
    ]
    assert [c.name for c in source.columns if not c.feature] == ["timestamp"]
    assert {f.name for f in source.files} == {"ratings.csv", "movies.csv", "tags.csv"}


def test_movielens_of_other_columns_is_refused(write: Write) -> None:
    folder = write("user,item,rating\n1,1,1\n", "ml/ratings.csv").parent
    with pytest.raises(DataError, match="has no column 'userId'"):
        read_source(folder)


def test_movielens_small(shared_data: Path) -> None:
    frame = rows(read_source(shared_data / "ml-latest-small"))
    assert frame.height == 100_836
    assert frame["label"].sum() == 48_580
    assert frame["genres"].list.len().max() == 10
