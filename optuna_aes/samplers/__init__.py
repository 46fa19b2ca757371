"""Optuna samplers for embedding sizes."""

from optuna_aes.samplers.adass import AdaSSSampler
from optuna_aes.samplers.policy import PolicyOptions

__all__ = ["AdaSSSampler", "PolicyOptions"]
