from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from optuna_aes.data.sources import blocks
from optuna_aes.data.sources.delimited import DelimitedTable
from optuna_aes.errors import DataError

Write = Callable[..., Path]


def rows(table: DelimitedTable, numeric: tuple[str, ...] = ()) -> pl.DataFrame:
    return pl.concat([b.frame for b in table.batches([c.name for c in table.columns], numeric=numeric)])


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_reads_the_usual_dialects(write: Write, separator: str, newline: str) -> None:
    lines = [separator.join(r) for r in (["a", "b", "c"], ["1", "2.5", "x"], ["", "", ""], ["3", "4", '"q""q"'])]
    table = DelimitedTable(write(newline.join(lines) + newline))
    assert [(c.name, c.kind) for c in table.columns] == [("a", "integer"), ("b", "float"), ("c", "text")]
    assert rows(table, ("b",)).rows() == [("1", 2.5, "x"), (None, None, None), ("3", 4.0, 'q"q')]


def test_quotes_may_hold_separators_and_newlines(write: Write) -> None:
    assert rows(DelimitedTable(write('a,b\n"1,5","x\ny"\n'))).rows() == [("1,5", "x\ny")]


def test_reads_only_the_columns_asked_for(write: Write) -> None:
    table = DelimitedTable(write("a,b,c\n1,2,3\n"))
    assert next(table.batches({"c", "a"})).frame.columns == ["a", "c"]


def test_blocks_do_not_show(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    table = DelimitedTable(write("a,b\n" + "".join(f"{i},v{i}\n" for i in range(500))))
    whole = rows(table)
    monkeypatch.setattr(blocks.read_blocks, "__kwdefaults__", {"size": 64})
    assert len(list(table.batches(["a"]))) > 10
    assert rows(table).equals(whole)
    assert [b.position for b in table.batches(["a"])][-1] == table.size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty: give a table"),
        (b"a,b,a\n1,2,3\n", "column 'a' is there twice"),
        (b",b\n1,2\n", "column 1 has no name"),
        (b"a,b\n1,2\n3\n", "line 3 has 1 values for 2 columns"),
        (b"a,b\n1,2\n3,4,5\n", "line 3 has 3 values for 2 columns"),
        (b"a,b\n1,2\n\n3,4\n", "line 3 has 0 values for 2 columns"),
        (b'a,b\n"1,1",2\n3\n', "line 3 has 1 values for 2 columns"),
        (b'a,b\n"x\ny",2\n3\n', "line 4 has 1 values for 2 columns"),
        (b"a,b\n1,2\n3,caf\xe9\n", "line 3 holds bytes that are not UTF-8 .0xe9.: save the file as UTF-8"),
        (b"a,\xff\n1,2\n", "line 1 holds bytes that are not UTF-8"),
        (b'a,b\n1,"2\n', "table.csv: "),
        (b'a,b\n1,2\n5,x"y\n', "table.csv: "),
    ],
)
def test_malformed_files_are_refused_in_one_line(write: Write, text: bytes, message: str) -> None:
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        rows(DelimitedTable(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_text_in_a_column_of_numbers_is_named(write: Write) -> None:
    table = DelimitedTable(write("a,b\n1,2.5\n2,n/a\n"))
    with pytest.raises(DataError, match=r"column 'b' is numeric and has 'n/a' in line 3.*categorical=\('b',\)"):
        rows(table, ("b",))
