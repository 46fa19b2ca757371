"""A search that exists, taken up on this machine: by ``worker`` and ``retrain``, in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.run import console_for
from optuna_aes.search.data import open_dataset
from optuna_aes.search.read import Record
from optuna_aes.search.search import Search
from optuna_aes.search.task import check_place


@dataclass(frozen=True)
class Here:
    """What a search cannot know of the machine that works on it.

    Args:
        data: Where the encoded dataset lies; None where the search says it is.
        cache: Folder for the copy of one that lies in an object store.
        device: Where to train.
        threads: Threads of torch on the CPU.
        quiet: Whether to print nothing.
    """

    data: str | None
    cache: str
    device: str
    threads: int | None
    quiet: bool


@contextmanager
def taken_up(record: Record, here: Here, **options: Any) -> Iterator[tuple[Search, Console]]:
    """Within the block the search is open, and its progress is shown.

    Args:
        record: The search.
        here: How to work on it.
        options: More of :meth:`Search.load`.

    Raises:
        InputError: If a value is out of range.
        DataError: If the data is not there, or is not that of the search.
    """
    check_place(here.device, here.threads)
    console = console_for(False)
    with progress_for(console, quiet=here.quiet) as progress:
        dataset = open_dataset(record, here.data, cache_dir=here.cache, note=progress.note, progress=progress.fetch)
        progress.encoded(sum(dataset.rows.values()), len(dataset.schema.fields))
        search = Search.load(
            record.name,
            record.storage,
            dataset=dataset,
            device=here.device,
            threads=here.threads,
            listener=progress,
            **options,
        )
        yield search, console
