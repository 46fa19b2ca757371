"""MovieLens folders: ratings with the films' side tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl

from optuna_aes.data.sources.base import Batch, Column, Table
from optuna_aes.data.sources.delimited import DelimitedTable
from optuna_aes.errors import DataError

LIKED = 4.0  # a rating from here on is a positive label, the habit of CTR work on MovieLens
_NO_GENRE = "(no genres listed)"


class MovieLensTable(Table):
    """A folder with ``ratings.csv`` and, where there, ``movies.csv`` and ``tags.csv``.

    The label is ``rating >= 4``. Fields: ``userId``, ``movieId``, ``genres`` (multi-valued), ``year`` (from the title), and
    with ``tags`` the film's most used tags (multi-valued). ``timestamp`` orders a time split and is no field.

    Args:
        path: The folder.
        tags: How many of a film's tags to keep; 0 leaves them out.

    Raises:
        DataError: If a table cannot be read or lacks a column.
    """

    def __init__(self, path: Path, *, tags: int = 0) -> None:
        self.path = path
        self._ratings = DelimitedTable(path / "ratings.csv")
        _require(self._ratings, ("userId", "movieId", "rating", "timestamp"))
        self.size = self._ratings.size
        self.files = self._ratings.files
        self._films = pl.DataFrame(schema={"movieId": pl.String})
        columns = [Column("userId", "integer"), Column("movieId", "integer")]
        if (path / "movies.csv").exists():
            self._join(_films(self._read("movies.csv", ("movieId", "title", "genres"))))
            columns += [Column("genres", "list"), Column("year", "integer")]
        if tags:
            self._join(_tags(self._read("tags.csv", ("movieId", "tag")), tags))
            columns.append(Column("tags", "list"))
        hidden = (Column("timestamp", "integer", feature=False), Column("label", "text"))
        self.columns = (*columns, *hidden)

    def batches(self, names: Collection[str], *, numeric: Collection[str] = ()) -> Iterator[Batch]:
        """See :meth:`Table.batches`."""
        for frame, position in self._ratings.batches({"userId", "movieId", "rating", "timestamp"}, numeric={"rating"}):
            rows = frame.with_columns((pl.col("rating") >= LIKED).alias("label")).join(
                self._films, on="movieId", how="left", maintain_order="left"
            )
            yield Batch(rows.select([c.name for c in self.columns if c.name in names]), position)

    def _read(self, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
        table = DelimitedTable(self.path / name)
        _require(table, columns)
        self.files += table.files
        return pl.concat([frame for frame, _ in table.batches(columns)])

    def _join(self, side: pl.DataFrame) -> None:
        self._films = self._films.join(side, on="movieId", how="full", coalesce=True)


def _require(table: Table, names: tuple[str, ...]) -> None:
    have = [c.name for c in table.columns]
    for name in names:
        if name not in have:
            raise DataError(f"{table.path} has no column {name!r} (its columns are {', '.join(have)}): not MovieLens?")


def _films(movies: pl.DataFrame) -> pl.DataFrame:
    genres = pl.when(pl.col("genres") != _NO_GENRE).then(pl.col("genres").str.split("|")).alias("genres")
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").alias("year")
    return movies.unique("movieId", keep="first").select("movieId", genres, year)


def _tags(tags: pl.DataFrame, top: int) -> pl.DataFrame:
    return (
        tags.select("movieId", pl.col("tag").str.strip_chars().str.to_lowercase())
        .group_by("movieId", "tag")
        .len()
        .sort(["movieId", "len", "tag"], descending=[False, True, False])
        .group_by("movieId", maintain_order=True)
        .agg(pl.col("tag").head(top).alias("tags"))
    )
