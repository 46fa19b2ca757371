"""Optuna samplers for embedding sizes."""

from optuna_aes.samplers.adass import AdaSSSampler
from optuna_aes.samplers.front_path import FrontPathSampler

__all__ = ["AdaSSSampler", "FrontPathSampler"]
