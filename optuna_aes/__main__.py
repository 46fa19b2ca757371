"""``python -m optuna_aes`` is ``optuna-aes``."""

from optuna_aes.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
