"""A text file as blocks of whole lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna_aes.errors import DataError

BLOCK = 2 << 20  # bytes: small beside any encoded dataset worth the name, large beside a parser's start
_LONGEST = 16  # blocks without an end of line: no table, or a quote that never closes


@dataclass(frozen=True)
class Block:
    """Whole lines of a text file.

    Args:
        data: UTF-8 or not, that is for the parser to find out; ends with a newline, except perhaps the last,
            and not with an empty line.
        line: Number of the first line, counted from 1.
        position: Bytes read after this block.
    """

    data: bytes
    line: int
    position: int


def read_blocks(path: Path, *, quoted: bool, size: int = BLOCK) -> Iterator[Block]:
    """Reads a file piece by piece, cut at ends of lines that are not inside quotes.

    The file is read and not memory-mapped: mapped pages count as resident memory, and a table may be larger than that.

    Args:
        path: The file.
        quoted: Whether ``"`` quotes fields, which then may hold newlines.
        size: Bytes of a piece.

    Raises:
        DataError: If the file cannot be read, or a quote never closes.
    """
    try:
        with path.open("rb") as file:
            rest, line, waiting = b"", 1, 0
            while piece := file.read(size):
                if line == 1 and not rest:
                    piece = piece.removeprefix(codecs.BOM_UTF8)
                data = rest + piece
                cut = _cut(data, quoted)
                waiting = 0 if cut else waiting + 1
                if waiting > _LONGEST:
                    raise DataError(
                        f"{path}: the row that starts in line {line} does not end: close its quotes, or break its lines"
                    )
                if cut:
                    yield Block(data[:cut], line, file.tell() - (len(data) - cut))
                    line += data.count(b"\n", 0, cut)
                rest = data[cut:]
            if rest.strip(b"\r\n"):
                yield Block(rest, line, file.tell())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _cut(data: bytes, quoted: bool) -> int:
    """Where the last row of ``data`` that is whole ends; 0 if none is."""
    cut = data.rfind(b"\n") + 1
    while quoted and cut and data.count(b'"', 0, cut) % 2:  # an odd number of quotes: this newline is inside a field
        cut = data.rfind(b"\n", 0, data.rfind(b'"', 0, cut)) + 1
    body = len(data[:cut].rstrip(b"\r\n"))  # empty lines wait: at the end of the file they are no rows
    return data.find(b"\n", body) + 1 if body else 0
