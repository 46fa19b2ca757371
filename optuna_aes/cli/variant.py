"""``optuna-aes retrain``: what a search picked, trained in another backbone or on from the supernet's weights."""

from __future__ import annotations

from optuna_aes.cli.existing import Here, taken_up
from optuna_aes.cli.tables import print_points
from optuna_aes.search.read import Record


def run_variant(record: Record, here: Here, *, backbone: str | None, inherited: bool) -> None:
    """Retrains a variant of a search, from wherever it stands to its end.

    Args:
        record: The search; what it lacks of its own fit and search is done first.
        here: How to work on it.
        backbone: See :meth:`optuna_aes.search.search.Search.variant`.
        inherited: See there.

    Raises:
        InputError: If there is no such variant, or the data is not that of the search.
    """
    with taken_up(record, here) as (search, console):
        search.check_variant(backbone=backbone, inherited=inherited)
        search.run(["fit", "search"])
        result = search.variant(backbone=backbone, inherited=inherited).run(["retrain"])
    if not here.quiet and result.points:
        console.print()
        print_points(console, result)
