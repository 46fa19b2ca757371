"""optuna_aes: automatic embedding-size search for recommender models, as an Optuna plugin.

Names are imported on first use, so that plain Optuna studies over the space and the budget never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna_aes.budget import MemoryBudget
    from optuna_aes.errors import AesError
    from optuna_aes.space import Block, Cost, EmbeddingSpace, Sizes

__version__ = "0.1.0"

_HOME = {
    "AesError": "errors",
    "Block": "space",
    "Cost": "space",
    "EmbeddingSpace": "space",
    "MemoryBudget": "budget",
    "Sizes": "space",
}

__all__ = ["AesError", "Block", "Cost", "EmbeddingSpace", "MemoryBudget", "Sizes", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
