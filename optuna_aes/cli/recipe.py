"""Recipes: TOML files whose keys are the options of ``optuna-aes search``."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from optuna_aes.cli.options import SearchOptions, option_types
from optuna_aes.cli.values import from_toml
from optuna_aes.errors import InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUFFIX = ".toml"

# What a run does and how it prints is for whoever starts it to say.
_NOT_IN_RECIPES = ("quiet", "json", "no_run")


def merged(source: str, given: Mapping[str, Any], explicit: Collection[str]) -> SearchOptions:
    """The options of a run: those of the command line, over those of the recipe, over the defaults.

    Args:
        source: The command's argument: a table or a recipe.
        given: Every option as the command line left it, defaults included.
        explicit: Names of the options that were on the command line.

    Raises:
        InputError: If the recipe cannot be used, or no table is named, or two are.
    """
    options = SearchOptions(**given)
    if Path(source).suffix.lower() != SUFFIX:
        if options.data is not None:
            raise InputError(f"the table is given twice, as {source} and as --data {options.data}: give one of them")
        return dataclasses.replace(
            options, data=source, name=_name_of(source) if options.name is None else options.name
        )
    options = dataclasses.replace(options, **read_recipe(source, without=explicit))
    if options.data is None:
        raise InputError(f'{source} names no table: write data = "PATH" into it, or give --data PATH')
    return dataclasses.replace(options, name=_name_of(source) if options.name is None else options.name)


def read_recipe(path: str, *, without: Collection[str] = ()) -> dict[str, Any]:
    """The options that a recipe gives, by name, checked for name and type.

    Args:
        path: The file.
        without: Names of options to leave out; environment variables of these need not be set.

    Raises:
        InputError: If the file is missing or no TOML, a key is no option, a value is of another type than the option's, or
            an environment variable is not set.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"the recipe {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(f"the recipe {path} is not UTF-8 text: save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the recipe {path} is not TOML: {error}") from None
    kinds = {name: kind for name, kind in option_types().items() if name not in _NOT_IN_RECIPES}
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in kinds:
            raise InputError(f"the recipe {path} has the unknown key {key!r}: {_hint(key, value, kinds)}")
        if name in found:
            raise InputError(f"the recipe {path} gives {name!r} twice: remove one")
        try:
            found[name] = from_toml(kinds[name], value)
        except TypeError as error:
            raise InputError(f"the recipe {path} has {key} = {value!r}: give {error}") from None
    for name in found.keys() & set(without):
        del found[name]
    return {k: type(v)(_expanded(path, k, v)) if isinstance(v, str) else v for k, v in found.items()}


def _hint(key: str, value: Any, kinds: Collection[str]) -> str:
    if isinstance(value, dict):
        return "write all keys at the top, without [sections]"
    if key.replace("-", "_") in _NOT_IN_RECIPES:
        return f"give --{key.replace('_', '-')} on the command line"
    close = difflib.get_close_matches(key.replace("-", "_"), kinds, n=1, cutoff=0.0)
    return f"did you mean {close[0]!r}?"


def _expanded(path: str, key: str, text: str) -> str:
    """The text with ``${NAME}`` replaced by the environment's value."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise InputError(
                f"the recipe {path} needs the environment variable {match[1]} for {key} = {text!r}: set it, or give "
                f"--{key.replace('_', '-')} on the command line"
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def _name_of(source: str) -> str:
    return Path(source).absolute().stem or "search"
