"""``optuna-aes worker``: one more process for a search that exists."""

from __future__ import annotations

import math

from optuna_aes.cli.existing import Here, taken_up
from optuna_aes.cli.run import print_header
from optuna_aes.errors import InputError
from optuna_aes.search.read import Record


def run_worker(record: Record, here: Here, *, poll: float) -> None:
    """Does what is left of a search, or what other workers leave to this one, to its end.

    Args:
        record: The search.
        here: How to work on it.
        poll: Seconds between looks while others are busy.

    Raises:
        InputError: If a value is out of range, or the data is not that of the search.
    """
    if not 0 < poll < math.inf:
        raise InputError(f"--poll {poll} is out of range: give seconds above 0")
    with taken_up(record, here, poll=poll, tries_again=False) as (search, console):
        if not here.quiet:
            dataset = search.context.task.dataset
            print_header(console, search, source=dataset.origin or str(dataset.folder))
        search.run()
