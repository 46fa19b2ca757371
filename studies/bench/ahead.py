"""A worker whose clock is ahead: ``python -m studies.bench.ahead SECONDS worker …``, else as ``optuna-aes worker …``."""

from __future__ import annotations

import datetime
import sys
import time
from types import SimpleNamespace
from typing import Any

import optuna.storages._rdb.storage
import optuna.trial._frozen

import optuna_aes.storage._queue_sql


def put_ahead(seconds: float) -> None:
    """Puts the clock of this process ahead, wherever a time is written to a study, and for all who ask for ``time.time``."""
    true_time, shift, real = time.time, datetime.timedelta(seconds=seconds), datetime.datetime

    class Ahead:
        @staticmethod
        def now(tz: Any = None) -> datetime.datetime:
            return real.now(tz) + shift

    time.time = lambda: true_time() + seconds
    optuna.storages._rdb.storage.datetime = Ahead
    optuna.trial._frozen.datetime = SimpleNamespace(datetime=Ahead, timedelta=datetime.timedelta)
    optuna_aes.storage._queue_sql.datetime = Ahead  # type: ignore[assignment, misc]  # on purpose


if __name__ == "__main__":
    put_ahead(float(sys.argv.pop(1)))
    from optuna_aes.cli import main

    raise SystemExit(main())
