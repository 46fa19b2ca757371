"""A table's codes on disk, between the one reading of the table and the writing of the ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optuna_aes.data.coders import Coder
from optuna_aes.data.fields import Codes


class Block(NamedTuple):
    """Consecutive rows of a table: which, and each column's codes."""

    rows: slice
    columns: Sequence[Codes]


class Stage:
    """Blocks of codes in a scratch file, each column of a block in one piece.

    Raw text is parsed once and its values are hashed once; what has to come later, because it needs the split or the whole
    vocabulary, reads 4-byte codes instead.

    Args:
        path: The scratch file; removed by whoever owns its folder.
        coders: The columns.
    """

    def __init__(self, path: Path, coders: Sequence[Coder]) -> None:
        self._coders = coders
        self._file = path.open("w+b")
        self._rows: list[int] = []

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return sum(self._rows)

    def append(self, columns: Sequence[Codes]) -> None:
        """Adds a block: for each coder the codes of the same rows."""
        for coder, codes in zip(self._coders, columns, strict=True):
            self._file.write(np.ascontiguousarray(codes, dtype=coder.dtype).data)
        self._rows.append(len(columns[0]))

    def blocks(self) -> Iterator[Block]:
        """The blocks, in order."""
        self._file.seek(0)
        start = 0
        for rows in self._rows:
            yield Block(slice(start, start + rows), [self._column(coder, rows) for coder in self._coders])
            start += rows

    def _column(self, coder: Coder, rows: int) -> Codes:
        codes: npt.NDArray[np.generic] = np.fromfile(self._file, dtype=coder.dtype, count=rows * coder.width)
        return codes.reshape(rows, coder.width) if coder.width > 1 else codes
