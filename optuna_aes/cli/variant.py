"""``optuna-aes retrain``: what a search picked, trained in another backbone or on from the supernet's weights."""

from __future__ import annotations

from pathlib import Path

from optuna_aes.cli.progress import progress_for
from optuna_aes.cli.run import console_for
from optuna_aes.cli.tables import print_points
from optuna_aes.data import Dataset
from optuna_aes.search.read import Record
from optuna_aes.search.search import Search
from optuna_aes.search.task import check_place


def run_variant(
    record: Record,
    *,
    backbone: str | None,
    inherited: bool,
    data: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Retrains a variant of a search, from wherever it stands to its end.

    Args:
        record: The search; what it lacks of its own fit and search is done first.
        backbone: See :meth:`optuna_aes.search.search.Search.variant`.
        inherited: See there.
        data: The encoded dataset; None where the search says it is.
        device: Where to train.
        threads: Threads of torch on the CPU.
        quiet: Whether to print nothing.

    Raises:
        InputError: If there is no such variant, or the data is not that of the search.
    """
    check_place(device, threads)
    dataset = None if data is None else Dataset.open(data)
    console = console_for(False)
    with progress_for(console, quiet=quiet) as progress:
        search = Search.load(
            record.name, record.storage, dataset=dataset, device=device, threads=threads, listener=progress
        )
        search.check_variant(backbone=backbone, inherited=inherited)
        search.run(["fit", "search"])
        result = search.variant(backbone=backbone, inherited=inherited).run(["retrain"])
    if not quiet and result.points:
        console.print()
        print_points(console, result)
