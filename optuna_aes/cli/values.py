"""Values of several parts, as the command line writes them (``1,2,4``) and as a recipe does (``[1, 2, 4]``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import typer

V = TypeVar("V", int, float, str)


class Ints(tuple[int, ...]):
    """Whole numbers."""


class Numbers(tuple[float, ...]):
    """Numbers."""


class Names(tuple[str, ...]):
    """Names of columns."""


class Amount(str):
    """A text that is mostly written as a number, such as a budget: ``0.25``, ``100000``, ``512MiB``."""


def _split(value: str | Sequence[Any]) -> list[Any]:
    # A default comes as it is; typer sends it through the parser too.
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else list(value)


def ints(value: str | Sequence[int]) -> Ints:
    """``"1,2,4"``."""
    try:
        return Ints(int(part) for part in _split(value))
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a list of whole numbers, such as 0,1,2,4") from None


def numbers(value: str | Sequence[float]) -> Numbers:
    """``"1,0.5"``."""
    try:
        return Numbers(float(part) for part in _split(value))
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a list of numbers, such as 1,0.5") from None


def names(value: str | Sequence[str]) -> Names:
    """``"user,item"``."""
    return Names(_split(value))


def amount(value: str) -> Amount:
    """``"0.25"``."""
    return Amount(value)


def from_toml(kind: Any, value: Any) -> Any:
    """A recipe's value as the option's type.

    Args:
        kind: The option's type.
        value: What the TOML file holds.

    Raises:
        TypeError: If the value is of another type; its text says what is wanted.
    """
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and _is_number(value, int):
        return value
    if kind is float and _is_number(value, int, float):
        return float(value)
    if kind is str and isinstance(value, str):
        return value
    if kind is Amount and (isinstance(value, str) or _is_number(value, int, float)):
        return Amount(value)
    parts = value if isinstance(value, list) else None
    if kind is Ints and parts is not None and all(_is_number(v, int) for v in parts):
        return Ints(parts)
    if kind is Numbers and parts is not None and all(_is_number(v, int, float) for v in parts):
        return Numbers(float(v) for v in parts)
    if kind is Names and parts is not None and all(isinstance(v, str) for v in parts):
        return Names(parts)
    raise TypeError(_WANTED[kind])


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: 'a text, such as "abc"',
    Amount: 'a number, or a text such as "512MiB"',
    Ints: "a list of whole numbers, such as [0, 1, 2]",
    Numbers: "a list of numbers, such as [1, 0.5]",
    Names: 'a list of names, such as ["user", "item"]',
}
