"""Recipes and benchmarks of optuna_aes."""
