"""Datasets by the name of their raw table: encoded once, then opened."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from optuna_aes.data.dataset import FORMAT_VERSION, SCHEMA, Dataset
from optuna_aes.data.encode import Progress, encode
from optuna_aes.data.options import EncodeOptions
from optuna_aes.data.sources import read_source
from optuna_aes.errors import DataError


def dataset_for(
    path: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str],
    format: str = "auto",
    options: EncodeOptions | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The dataset of a raw table, or of a folder that is one already.

    Args:
        path: As :func:`encode` takes it, or an encoded folder, which is opened as it is.
        cache_dir: Where encoded tables are kept. A table is encoded again when a file of it (by name, size and time of
            change), an option or the dataset format is another.
        format: The table's format.
        options: How to encode.
        progress: As :func:`encode` takes it; not called where nothing is to do.

    Raises:
        DataError: If the table or an option cannot be used.
    """
    if (Path(path) / SCHEMA).exists():
        return Dataset.open(path)
    options = options or EncodeOptions()
    source = read_source(path, format=format, tags=options.tags)
    state = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in source.files]
    key = json.dumps([FORMAT_VERSION, source.format, options.to_json(), state])
    folder = Path(cache_dir) / f"{source.path.stem}-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
    if folder.exists():
        try:
            return Dataset.open(folder)
        except DataError:
            pass  # damaged: made anew
    return encode(path, folder, format=format, options=options, progress=progress)
