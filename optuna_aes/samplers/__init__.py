"""Optuna samplers for embedding sizes."""

from optuna_aes.samplers.adass import AdaSSSampler

__all__ = ["AdaSSSampler"]
