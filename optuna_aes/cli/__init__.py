"""The command line: ``optuna-aes``. Commands import what they need when they run, so that ``status`` never loads torch."""

from optuna_aes.cli.app import main

__all__ = ["main"]
