"""Criteo's display advertising logs: label, 13 counts I1–I13, 26 categories C1–C26."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna_aes.data.sources.base import ColumnKind
from optuna_aes.data.sources.delimited import DelimitedTable

COUNTS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
NAMES = ("label", *COUNTS, *CATEGORIES)


def is_criteo(names: Sequence[str]) -> bool:
    """Whether a header is that of Criteo samples passed around as CSV."""
    return set(NAMES) <= set(names)


class CriteoTable(DelimitedTable):
    """The original file (tab-separated, no header), or a sample with a header. I1–I13 are numeric whatever they look like.

    Args:
        path: The file.
        header: Whether the first line is a header.

    Raises:
        DataError: As :class:`DelimitedTable`.
    """

    def __init__(self, path: Path, *, header: bool) -> None:
        if header:
            super().__init__(path)
        else:
            super().__init__(path, separator="\t", names=NAMES, quoted=False)
        kinds: dict[str, ColumnKind] = {**dict.fromkeys(COUNTS, "float"), **dict.fromkeys(CATEGORIES, "text")}
        self.columns = tuple(replace(c, kind=kinds.get(c.name, c.kind)) for c in self.columns)
