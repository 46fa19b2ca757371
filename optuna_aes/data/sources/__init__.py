"""Raw tables: one module a format, and the choice among them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from optuna_aes.data.sources.avazu import AvazuTable, is_avazu
from optuna_aes.data.sources.base import Batch, Column, Source, Table
from optuna_aes.data.sources.criteo import NAMES, CriteoTable, is_criteo
from optuna_aes.data.sources.delimited import DelimitedTable, decode
from optuna_aes.data.sources.libfm import LibfmTable
from optuna_aes.data.sources.movielens import MovieLensTable
from optuna_aes.data.sources.parquet import ParquetTable
from optuna_aes.errors import DataError

__all__ = ["FORMATS", "Batch", "Column", "Source", "Table", "read_source"]

FORMATS = ("auto", "csv", "parquet", "libfm", "criteo", "avazu", "movielens")
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".libfm": "libfm", ".libsvm": "libfm", ".svm": "libfm"}
_LIBFM_LINE = re.compile(r"^[-+]?[\d.]+( \d+:\S+)+\s*$")
_SPLITS = ("train", "valid", "test")


def read_source(path: str | os.PathLike[str], *, format: str = "auto", tags: int = 0) -> Source:
    """Opens a raw table: looks at its first rows, reads nothing else yet.

    Args:
        path: A file, a folder with ``train.*``, ``test.*`` and perhaps ``valid.*`` (a given split), or a MovieLens folder.
        format: One of :data:`FORMATS`; ``"auto"`` goes by suffix, header and first row.
        tags: MovieLens only: how many of a film's most used tags to add as a field.

    Raises:
        DataError: If nothing is there, the format is unknown, or the first rows cannot be read.
    """
    if format not in FORMATS:
        raise DataError(f"format={format!r} is unknown: use one of {', '.join(FORMATS)}")
    where = Path(path)
    if not where.exists():
        raise DataError(f"{where} does not exist: check the path")
    if where.is_dir():
        return _read_folder(where, format, tags)
    chosen = detect(where) if format == "auto" else format
    return Source.of(where, chosen, [(None, _open(where, chosen))])


def detect(path: Path) -> str:
    """The format of a file, by suffix, then by what its first line looks like.

    Raises:
        DataError: If the file is binary and not Parquet, or not UTF-8.
    """
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 20)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if b"\0" in head:
        raise DataError(f"{path} is neither text nor Parquet: give a table in one of {', '.join(FORMATS[1:])}")
    line = decode(path, head, 1).lstrip("\ufeff").strip("\r\n")
    if is_criteo(_header(line)) or _is_raw_criteo(line):
        return "criteo"
    if is_avazu(_header(line)):
        return "avazu"
    return "libfm" if _LIBFM_LINE.match(line) else "csv"


def _header(line: str) -> list[str]:
    return re.split(r"[,\t;]", line)


def _is_raw_criteo(line: str) -> bool:
    cells = line.split("\t")
    return len(cells) == len(NAMES) and cells[0] in ("0", "1")


def _open(path: Path, format: str) -> Table:
    if path.is_dir():
        raise DataError(f"{path} is a folder, and format={format!r} is a file's: name the file")
    if format == "parquet":
        return ParquetTable(path)
    if format == "libfm":
        return LibfmTable(path)
    if format == "avazu":
        return AvazuTable(path)
    if format == "criteo":
        with path.open("rb") as file:
            return CriteoTable(
                path, header=not _is_raw_criteo(file.readline().decode("utf-8", "replace").rstrip("\r\n"))
            )
    if format == "movielens":
        raise DataError(f"{path} is a file: format='movielens' reads the folder that holds ratings.csv")
    return DelimitedTable(path)


def _read_folder(path: Path, format: str, tags: int) -> Source:
    found: dict[str, Path] = {}
    for split in _SPLITS:
        files = sorted(f for f in path.glob(f"{split}.*") if f.is_file())
        if len(files) > 1:
            raise DataError(f"{path} holds {files[0].name} and {files[1].name}: leave one {split}.* file")
        if files:
            found[split] = files[0]
    if format == "movielens" or (not found and (path / "ratings.csv").exists()):
        return Source.of(path, "movielens", [(None, MovieLensTable(path, tags=tags))])
    for split in ("train", "test"):
        if split not in found:
            raise DataError(
                f"{path} holds no {split}.* file: a folder needs train.* and test.* (and may have valid.*), or ratings.csv"
            )
    chosen = detect(found["train"]) if format == "auto" else format
    return Source.of(path, chosen, [(split, _open(file, chosen)) for split, file in found.items()])
