"""Optuna pruners for embedding-size searches."""

from optuna_aes.pruners.budget import BudgetPruner
from optuna_aes.pruners.front import FrontPruner

__all__ = ["BudgetPruner", "FrontPruner"]
