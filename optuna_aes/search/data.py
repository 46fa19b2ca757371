"""The data of a search that exists: where it lies, and that it is what the search was made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna_aes.data.dataset import Dataset
from optuna_aes.errors import DataError
from optuna_aes.search.read import Record
from optuna_aes.search.settings import jsonable
from optuna_aes.storage.remote import CACHE, check_fingerprint, open_dataset_at


def where(dataset: Dataset) -> dict[str, Any]:
    """What a search keeps of its data: where it lies, and what is known of it; JSON-ready."""
    return {
        "folder": None if dataset.folder is None else str(Path(dataset.folder).resolve()),
        "origin": dataset.origin,
        "rows": dataset.rows,
        "facts": jsonable(dict(dataset.facts or {})),
    }


def open_dataset(
    record: Record,
    dataset: Dataset | str | None = None,
    *,
    cache_dir: str | Path = CACHE,
    note: Callable[[str], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Dataset:
    """The data of a search.

    Args:
        record: The search.
        dataset: The data if the caller has it, or the place where it lies. Otherwise it is opened where the search says
            that it is: in a folder or, where that is not on this machine, in the object store that it came from.
        cache_dir: See :func:`optuna_aes.storage.remote.open_dataset_at`, and so are the others.
        note: See there.
        progress: See there.

    Raises:
        DataError: If it is not there, or is not what the search was made with.
        StorageError: If the object store cannot be read.
    """
    wanted = record.settings["dataset"]
    if not isinstance(dataset, Dataset):
        place = dataset or _place(record)
        return open_dataset_at(place, cache_dir=cache_dir, fingerprint=wanted, note=note, progress=progress)
    check_fingerprint("the dataset", dataset.fingerprint, wanted)
    return dataset


def _place(record: Record) -> str:
    folder, origin = record.data["folder"], record.data.get("origin")
    if folder is not None and Path(folder).is_dir():
        return str(folder)
    if origin is not None:
        return str(origin)
    gone = "was in memory only" if folder is None else f"is not at {folder} any more"
    raise DataError(
        f"the dataset of search {record.name!r} {gone}: give it with dataset=…, on the command line --data FOLDER (or "
        "s3://BUCKET/FOLDER)"
    )
