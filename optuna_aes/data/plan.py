"""Which columns of a source are fields, of what kind, and which is the label: the options checked against the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optuna_aes.data.dataset import FieldKind
from optuna_aes.data.options import EncodeOptions
from optuna_aes.data.sources.base import Column, Source, suggest
from optuna_aes.errors import DataError


@dataclass(frozen=True)
class Plan:
    """What to read of a source.

    Args:
        label: The label's column.
        time: The column that orders a time split, if any.
        fields: Name and kind of every field, in the order of the table's columns.
    """

    label: str
    time: str | None
    fields: tuple[tuple[str, FieldKind], ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column to read."""
        return (self.label, *([self.time] if self.time else []), *(name for name, _ in self.fields))

    @property
    def numeric(self) -> tuple[str, ...]:
        """The columns to read as numbers."""
        return tuple(name for name, kind in self.fields if kind == "numeric")


def make_plan(source: Source, options: EncodeOptions) -> Plan:
    """Decides what each column is.

    Raises:
        DataError: If the label, the time column or a column that an option names is not there, if options contradict each
            other or a column's content, or if no field is left.
    """
    columns = {c.name: c for c in source.columns}
    label = options.label or source.label
    if label not in columns:
        raise DataError(
            f"{source.path} has no label column {label!r} ({suggest(label, columns)}): name the label's column with label="
        )
    given = source.tables[0][0] is not None
    time = None if given else options.time_column
    if time is not None and time not in columns:
        raise DataError(f"split={options.split!r}: {source.path} has no column {time!r} ({suggest(time, columns)})")
    _check_options(source, options, label, time)
    fields = tuple(
        (c.name, _kind(source, c, options))
        for c in source.columns
        if c.feature and c.name not in (label, time, *options.drop)
    )
    if not fields:
        raise DataError(f"{source.path} has no column left to be a field: drop fewer columns")
    return Plan(label=label, time=time, fields=fields)


def _check_options(source: Source, options: EncodeOptions, label: str, time: str | None) -> None:
    names = [c.name for c in source.columns]
    used: dict[str, str] = {label: "label"} | ({time: "split"} if time else {})
    for option in ("drop", "multi", "categorical", "numeric_columns"):
        for name in getattr(options, option):
            if name not in names:
                raise DataError(f"{option} names {name!r}, which {source.path} does not have ({suggest(name, names)})")
            if used.setdefault(name, option) != option and (option, used[name]) != ("drop", "split"):
                raise DataError(f"{option} and {used[name]} both name {name!r}: name the column in one of them")


def _kind(source: Source, column: Column, options: EncodeOptions) -> FieldKind:
    name, holds = column.name, column.kind
    if holds == "unusable":
        raise DataError(
            f"{source.path}: column {name!r} holds nested or binary values: leave it out with drop=({name!r},)"
        )
    if holds == "list":
        return "multi"
    if name in options.multi:
        return "multi"
    if name in options.numeric_columns:
        if holds == "text":
            raise DataError(f"numeric_columns names {name!r}, which holds text in {source.path}: leave it categorical")
        return "numeric"
    return "numeric" if holds == "float" and name not in options.categorical else "categorical"


def drop_hint(names: Sequence[str]) -> str:
    """How to leave columns out, for messages."""
    return f"leave out with drop={tuple(names)!r}"
