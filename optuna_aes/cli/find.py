"""The search that a command means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from optuna_aes.errors import InputError

if TYPE_CHECKING:
    from optuna_aes.search.read import Record


def find_record(
    name: str | None, storage: str, backbone: str | None = None, inherited: bool = False, *, wait: float = 0.0
) -> Record:
    """The search of that name, or the only one there; with the retraining of a variant, if one is asked for.

    Args:
        name: Its name, if given.
        storage: URL of the database.
        backbone: Backbone of the variant.
        inherited: Whether the variant starts from the supernet's weights.
        wait: Seconds to wait for a database that cannot be reached.

    Raises:
        InputError: If no name is given, and there is not just one search.
        StorageError: If the storage cannot be opened, or holds no such search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from optuna_aes.search.read import open_record
    from optuna_aes.search.studies import names as names_in
    from optuna_aes.search.variant import Variant
    from optuna_aes.storage import open_storage, safe_url

    opened = open_storage(storage, must_exist=True, wait=wait)
    if name is None:
        there = names_in(opened)
        if len(there) != 1:
            what = f"holds {len(there)} searches ({', '.join(there[:5])})" if there else "holds no search"
            raise InputError(f"the storage {safe_url(storage)} {what}: give --name")
        name = there[0]
    record = open_record(name, opened)
    variant = Variant(None if backbone == record.settings["model"]["backbone"] else backbone, inherited)
    return open_record(name, opened, variant) if variant.label else record
