"""``optuna-aes worker``: one more process for a search that exists."""

from __future__ import annotations

import math
from pathlib import Path

from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.run import console_for, print_header
from optuna_aes.data import Dataset
from optuna_aes.errors import InputError
from optuna_aes.search.read import Record
from optuna_aes.search.search import Search
from optuna_aes.search.task import check_place


def run_worker(
    record: Record, *, data: Path | None, device: str, threads: int | None, poll: float, quiet: bool
) -> None:
    """Does what is left of a search, or what other workers leave to this one, to its end.

    Args:
        record: The search.
        data: The encoded dataset; None where the search says it is.
        device: Where to train.
        threads: Threads of torch on the CPU.
        poll: Seconds between looks while others are busy.
        quiet: Whether to print nothing.

    Raises:
        InputError: If a value is out of range, or the data is not that of the search.
    """
    if not 0 < poll < math.inf:
        raise InputError(f"--poll {poll} is out of range: give seconds above 0")
    check_place(device, threads)
    dataset = None if data is None else Dataset.open(data)
    console = console_for(False)
    with progress_for(console, quiet=quiet) as progress:
        search = Search.load(
            record.name,
            record.storage,
            dataset=dataset,
            device=device,
            threads=threads,
            poll=poll,
            tries_again=False,
            listener=progress,
        )
        if not quiet:
            print_header(console, search, source=str(data or record.data["folder"]))
        search.run()
