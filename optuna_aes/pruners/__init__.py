"""Optuna pruners for embedding-size searches."""

from optuna_aes.pruners.budget import BudgetPruner

__all__ = ["BudgetPruner"]
