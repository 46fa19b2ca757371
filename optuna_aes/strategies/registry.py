"""Strategies by name, imported on first use."""

from __future__ import annotations

import importlib
from typing import Any

from optuna_aes.errors import InputError

_HOME = {"adass": "optuna_aes.strategies.adass.strategy:AdaSS"}


def strategy_class(name: str) -> Any:
    """The strategy of that name.

    Raises:
        InputError: If there is none.
    """
    if name not in _HOME:
        raise InputError(f"strategy={name!r} is not known: give one of {', '.join(_HOME)}")
    module, attribute = _HOME[name].split(":")
    return getattr(importlib.import_module(module), attribute)
