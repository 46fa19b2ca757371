"""The strategy that the options of a search ask for."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from optuna_aes.cli.options import SearchOptions
from optuna_aes.errors import InputError
from optuna_aes.strategies.base import Strategy
from optuna_aes.strategies.registry import strategy_class

T = TypeVar("T")  # a dataclass, which mypy cannot be told where strategies are known by their base class alone

# Fields of strategies, and of their parts, that have an option of their own: field name, option name. All else is for --set.
_OPTIONS = {
    name: name
    for name in (
        "sharing", "field_share", "paths", "full_share", "levels", "estimator", "penalty", "group", "score_rows",
        "race", "blocks", "parts",
    )
} | {"table": "table_sampling"}  # fmt: skip


def strategy_of(options: SearchOptions) -> Strategy:
    """The strategy, with those of the options that it knows, and with what ``--set`` gives.

    Raises:
        InputError: If there is no such strategy, or it does not know what is set.
    """
    strategy = _with_options(strategy_class(options.strategy)(), options)
    if options.blocks != SearchOptions.blocks and not knows_blocks(options.strategy):
        raise InputError(
            f"--blocks {options.blocks}: the strategy {options.strategy!r} has one size per field: leave it out"
        )
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text!r} is not of the form NAME=VALUE")
        strategy = _with(strategy, name.strip(), value.strip(), f"--set {text}")
    return strategy


def knows_blocks(strategy: str) -> bool:
    """Whether a strategy can give sizes to blocks within fields."""
    return hasattr(strategy_class(strategy), "blocks")


def _with_options(value: T, options: SearchOptions) -> T:
    """The dataclass, and those inside it, with every field that an option sets.

    An option at its default changes nothing, for a strategy's own default may be another.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            changes[field.name] = _with_options(inner, options)
        elif (option := _OPTIONS.get(field.name)) is not None:
            asked = getattr(options, option)
            if asked != getattr(SearchOptions, option):
                changes[field.name] = tuple(asked) if isinstance(asked, tuple) else asked
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]


def _with(value: T, name: str, text: str, given: str) -> T:
    """The dataclass with one field, ``name`` or ``part.name``, read from a text."""
    first, _, rest = name.partition(".")
    fields = [f.name for f in dataclasses.fields(value)]  # type: ignore[arg-type]
    if first not in fields:
        raise InputError(f"{given}: {first!r} is not known: give one of {', '.join(fields)}")
    inner = getattr(value, first)
    if dataclasses.is_dataclass(inner) != bool(rest):
        what = f"a part, give {first}.NAME" if dataclasses.is_dataclass(inner) else "not a part of several fields"
        raise InputError(f"{given}: {first!r} is {what}")
    new = _with(inner, rest, text, given) if rest else _read(typing.get_type_hints(type(value))[first], text, given)
    return dataclasses.replace(value, **{first: new})  # type: ignore[type-var]


def _read(kind: Any, text: str, given: str) -> Any:
    """The value of a field, of its type."""
    try:
        if kind is bool and text in ("true", "false"):
            return text == "true"
        if kind in (int, float, str):
            return kind(text)
        if typing.get_origin(kind) is tuple:
            return tuple(typing.get_args(kind)[0](part) for part in text.split(";"))
    except ValueError:
        pass
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}.get(kind, "values with ; between them")
    raise InputError(f"{given}: give {wanted}")
