from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from optuna_aes.data.sources.blocks import read_blocks
from optuna_aes.errors import DataError

Write = Callable[..., Path]


@pytest.mark.parametrize("size", [3, 7, 1000])
def test_blocks_are_whole_lines_and_join_to_the_file(write: Write, size: int) -> None:
    text = b"a,b\n1,2\n33,44\n5,6"
    path = write(text)
    blocks = list(read_blocks(path, quoted=True, size=size))
    assert b"".join(b.data for b in blocks) == text
    assert all(b.data.endswith(b"\n") for b in blocks[:-1])
    assert [b.line for b in blocks] == [1 + text[: text.index(b.data)].count(b"\n") for b in blocks]
    assert blocks[-1].position == len(text)


def test_newlines_inside_quotes_do_not_end_a_row(write: Write) -> None:
    blocks = [b.data for b in read_blocks(write(b'a,"x\ny"\nb,"z\n\n"\n'), quoted=True, size=5)]
    assert blocks == [b'a,"x\ny"\n', b'b,"z\n\n"\n']


def test_a_byte_order_mark_and_empty_lines_at_the_end_are_left_out(write: Write) -> None:
    for size in (6, 1000):
        blocks = read_blocks(write(b"\xef\xbb\xbfa\n1\n\r\n\n"), quoted=True, size=size)
        assert b"".join(b.data for b in blocks) == b"a\n1\n"
    assert not list(read_blocks(write(b""), quoted=True))


def test_a_quote_that_never_closes_is_an_error_in_bounded_memory(write: Write) -> None:
    with pytest.raises(DataError, match=r"row that starts in line 2 does not end"):
        list(read_blocks(write(b'a\n"b\n' + b"c\n" * 1000), quoted=True, size=10))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_blocks(tmp_path / "none.csv", quoted=True))
