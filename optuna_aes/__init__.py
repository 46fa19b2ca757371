"""optuna_aes: automatic embedding-size search for recommender models, as an Optuna plugin.

Names are imported on first use, so that plain Optuna studies over the space and the budget never load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna_aes.budget import MemoryBudget
    from optuna_aes.data import Dataset, EncodeOptions, Encoder, encode
    from optuna_aes.errors import AesError
    from optuna_aes.export import load_model
    from optuna_aes.models.model import CTRModel, ModelOptions
    from optuna_aes.models.train_options import TrainOptions
    from optuna_aes.pruners import BudgetPruner
    from optuna_aes.samplers import AdaSSSampler
    from optuna_aes.search.search import Search
    from optuna_aes.search.task import Task
    from optuna_aes.space import Block, Cost, EmbeddingSpace, Sizes
    from optuna_aes.storage import open_storage
    from optuna_aes.strategies.adass.policy import PolicyOptions
    from optuna_aes.strategies.adass.sampling import SamplingOptions
    from optuna_aes.strategies.adass.strategy import AdaSS

__version__ = "0.1.0"

_HOME = {
    "AdaSS": "strategies.adass.strategy",
    "AdaSSSampler": "samplers",
    "AesError": "errors",
    "Block": "space",
    "BudgetPruner": "pruners",
    "CTRModel": "models.model",
    "Cost": "space",
    "Dataset": "data",
    "EmbeddingSpace": "space",
    "EncodeOptions": "data",
    "Encoder": "data",
    "MemoryBudget": "budget",
    "ModelOptions": "models.model",
    "PolicyOptions": "strategies.adass.policy",
    "SamplingOptions": "strategies.adass.sampling",
    "Search": "search.search",
    "Sizes": "space",
    "Task": "search.task",
    "TrainOptions": "models.training",
    "encode": "data",
    "load_model": "export",
    "open_storage": "storage",
}

__all__ = [
    "AdaSS",
    "AdaSSSampler",
    "AesError",
    "Block",
    "BudgetPruner",
    "CTRModel",
    "Cost",
    "Dataset",
    "EmbeddingSpace",
    "EncodeOptions",
    "Encoder",
    "MemoryBudget",
    "ModelOptions",
    "PolicyOptions",
    "SamplingOptions",
    "Search",
    "Sizes",
    "Task",
    "TrainOptions",
    "__version__",
    "encode",
    "load_model",
    "open_storage",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
