"""Blocks of feature values that share one embedding size: ranges of a field's values by frequency, or bands over all fields.

A field's ids are ranked by frequency in the training rows, so a block is a range of rows in every field that it has a part
in. Numeric fields, whose ids are in the order of the numbers, are always one block of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optuna_aes.data.dataset import PAD, Schema
from optuna_aes.errors import InputError

Ints = npt.NDArray[np.int64]

KINDS = ("field", "frequency", "shares", "bands")


@dataclass(frozen=True)
class Partition:
    """Which block every row of every field belongs to.

    Args:
        names: The blocks' names.
        pieces: ``(field, first row, row after the last, block)`` in the order of fields and rows, without gaps.
    """

    names: tuple[str, ...]
    pieces: tuple[tuple[int, int, int, int], ...]

    @property
    def rows(self) -> dict[str, int]:
        """Rows of every block by its name."""
        total = [0] * len(self.names)
        for _, start, stop, block in self.pieces:
            total[block] += stop - start
        return dict(zip(self.names, total, strict=True))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {"names": list(self.names), "pieces": [list(piece) for piece in self.pieces]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Partition:
        """The inverse of :meth:`to_json`."""
        pieces = tuple((int(f), int(a), int(b), int(k)) for f, a, b, k in value["pieces"])
        return cls(tuple(str(name) for name in value["names"]), pieces)


def check_blocks(kind: str, parts: int) -> None:
    """Refuses a kind of blocks that is not known, and a number that divides nothing.

    Raises:
        InputError: If either is so.
    """
    if kind not in KINDS:
        raise InputError(f"blocks={kind!r} is not known: give one of {', '.join(KINDS)}")
    if parts < 2:
        raise InputError(f"parts={parts} is out of range: give at least 2")


def partition(schema: Schema, ids: npt.NDArray[np.int32], kind: str, parts: int, *, least: int = 2) -> Partition | None:
    """Divides the values of a dataset into blocks.

    Args:
        schema: Its fields.
        ids: Its training rows, shape ``(rows, columns)``.
        kind: ``"field"``: a block per field, which is None; ``"frequency"``: ``parts`` ranges of equally many values in
            each field; ``"shares"``: the same over the values of all fields together; ``"bands"``: values that training
            rows show up to 9 times, up to 99 times, and so on, over all fields.
        parts: Blocks, where their number is free.
        least: For ``"frequency"``: a field of no more than so many values for each of its parts is one block.

    Raises:
        InputError: If the kind is not known.
    """
    check_blocks(kind, parts)
    if kind == "field":
        return None
    counts = value_counts(schema, ids)
    if kind == "frequency":
        labels = [_ranges(len(count), parts, least) for count in counts]
    elif kind == "bands":
        labels = [np.log10(np.maximum(count, 1)).astype(np.int64) for count in counts]
    else:
        labels = _shares(counts, parts)
    return _assemble(schema, labels, kind)


def value_counts(schema: Schema, ids: npt.NDArray[np.int32]) -> list[Ints]:
    """How often each value of each field occurs, int64 of shape ``(cardinality,)`` each."""
    found, at = [], 0
    for field in schema.fields:
        values = ids[:, at : at + field.width]
        found.append(np.bincount(values[values != PAD], minlength=field.cardinality).astype(np.int64))
        at += field.width
    return found


def _ranges(rows: int, parts: int, least: int) -> Ints:
    """Labels of equally long ranges, the first the highest; too few rows are one."""
    if rows <= least * parts:
        return np.zeros(rows, dtype=np.int64)
    return np.asarray(parts - 1 - np.arange(rows) * parts // rows, dtype=np.int64)


def _shares(counts: list[Ints], parts: int) -> list[Ints]:
    """Labels by rank among the values of all fields, the most frequent the highest."""
    order = np.argsort(-np.concatenate(counts), kind="stable")
    labels = np.empty(len(order), dtype=np.int64)
    labels[order] = parts - 1 - np.arange(len(order)) * parts // len(order)
    return np.split(labels, np.cumsum([len(count) for count in counts])[:-1])


def _assemble(schema: Schema, labels: list[Ints], kind: str) -> Partition:
    names: dict[str, int] = {}
    pieces = []
    for at, (field, label) in enumerate(zip(schema.fields, labels, strict=True)):
        # Id 0, of values that training rows do not show, goes with the most frequent values, which it stands next to.
        label = np.concatenate([label[1:2], label[1:]]) if field.kind != "numeric" else np.zeros_like(label)
        ends = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
        for start, stop in itertools.pairwise(ends):
            if field.kind == "numeric" or (kind == "frequency" and len(ends) == 2):
                name = field.name
            elif kind == "frequency":
                name = f"{field.name}#{ends.index(start) + 1}"
            else:
                name = f"{kind}#{label[start]}"
            pieces.append((at, start, stop, names.setdefault(name, len(names))))
    return Partition(tuple(names), tuple(pieces))
