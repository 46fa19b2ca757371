"""Strategies by name, imported on first use, and how one is made of options."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

from optuna_aes.errors import InputError

if TYPE_CHECKING:
    from optuna_aes.strategies.base import Strategy

_STOCK = "optuna_aes.strategies.baselines.stock"
_RULES = "optuna_aes.strategies.baselines.rules"
_PRUNING = "optuna_aes.strategies.pruning"

STRATEGIES = {
    "adass": "optuna_aes.strategies.adass.strategy:AdaSS",
    "magnitude": f"{_PRUNING}.magnitude:Magnitude",
    "saliency": f"{_PRUNING}.saliency:Saliency",
    "dnis": "optuna_aes.strategies.dnis.strategy:DNIS",
    "sham": "optuna_aes.strategies.sham.strategy:SHAM",
    "ihas": "optuna_aes.strategies.ihas.strategy:IHAS",
    "random": f"{_STOCK}:Random",
    "tpe": f"{_STOCK}:TPE",
    "nsga2": f"{_STOCK}:NSGAII",
    "gp": f"{_STOCK}:GP",
    "retrain-tpe": "optuna_aes.strategies.baselines.scratch:RetrainTPE",
    "retrain-nsga2": "optuna_aes.strategies.baselines.scratch:RetrainNSGAII",
    "uniform": f"{_RULES}:Uniform",
    "mde": f"{_RULES}:MDE",
}


def strategy_class(name: str) -> type[Strategy]:
    """The strategy of that name, or the class at ``module:Class``.

    Raises:
        InputError: If there is none.
    """
    if name not in STRATEGIES and ":" not in name:
        raise InputError(
            f"strategy={name!r} is not known: give one of {', '.join(STRATEGIES)}, or module:Class of your own"
        )
    module, _, attribute = STRATEGIES.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"strategy={name!r} cannot be imported: {error}") from None
    from optuna_aes.strategies.base import Strategy

    if not (isinstance(found, type) and issubclass(found, Strategy) and dataclasses.is_dataclass(found)):
        raise InputError(f"strategy={name!r} is no dataclass that derives from optuna_aes.strategies.base.Strategy")
    return found


def name_of(strategy: Strategy) -> str:
    """What :func:`strategy_class` finds a strategy by: its name if it is one of ours, else its module and class."""
    kind = type(strategy)
    at = f"{kind.__module__}:{kind.__qualname__}"
    return kind.name if STRATEGIES.get(kind.name) == at else at
