"""The fitted encoder: turns raw rows into the ids a model was trained on. It lies in the dataset's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from optuna_aes.data.dataset import OOV, IntArray, Schema
from optuna_aes.data.fields import CategoricalField, Field, NumericField, to_numpy
from optuna_aes.data.options import EncodeOptions
from optuna_aes.data.sources.avazu import HOUR, expand_hour
from optuna_aes.data.sources.base import one_line
from optuna_aes.errors import DataError

VOCABULARY = "vocabulary.parquet"
ENCODER = "encoder.json"
ENCODER_FILES = (ENCODER, VOCABULARY)


@dataclass(frozen=True)
class Encoder:
    """Fields fitted to the training rows of a table.

    Args:
        fields: In the order of their columns.
        label: The label's column.
        format: Of the source.
        options: How the table was encoded.
    """

    fields: tuple[Field, ...]
    label: str
    format: str
    options: EncodeOptions

    @property
    def schema(self) -> Schema:
        """The schema of the datasets this encoder writes."""
        return Schema(fields=tuple(f.spec for f in self.fields), label=self.label)

    def transform(self, frame: pl.DataFrame) -> IntArray:
        """Encodes raw rows; the label need not be there, columns that are no fields are ignored.

        Args:
            frame: Rows as the source gave them, with a column for each field; Avazu's ``hour`` is expanded here too.

        Returns:
            int32 ids of shape ``(rows, columns)``, as in the dataset.

        Raises:
            DataError: If a column is missing or its values are of another kind.
        """
        if self.format == "avazu" and HOUR in frame.columns:
            frame = expand_hour(frame)
        for field in self.fields:
            if field.name not in frame.columns:
                raise DataError(
                    f"the rows to encode have no column {field.name!r}: give every field of the training table"
                )
        ids = np.empty((frame.height, self.schema.columns), dtype=np.int32)
        try:
            codes = frame.select(f.codes(frame.schema[f.name]).alias(f.name) for f in self.fields)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"the rows to encode do not fit the training table: {one_line(error)}") from error
        fill_ids(ids, zip(self.fields, map(to_numpy, codes.iter_columns()), strict=True))
        return ids

    def save(self, folder: Path) -> None:
        """Writes ``encoder.json`` and ``vocabulary.parquet`` (field, value, id; a null value is the missing one's)."""
        meta = {
            "label": self.label,
            "format": self.format,
            "options": self.options.to_json(),
            "fields": [_field_to_json(f) for f in self.fields],
        }
        (folder / ENCODER).write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")
        tables = [_vocabulary(f) for f in self.fields if isinstance(f, CategoricalField)]
        empty = pl.DataFrame(schema={"field": pl.String, "value": pl.String, "id": pl.Int32})
        pl.concat([empty, *tables]).write_parquet(folder / VOCABULARY)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Encoder:
        """Reads the encoder of a dataset folder.

        Raises:
            DataError: If the folder holds none.
        """
        path = Path(folder)
        try:
            meta = json.loads((path / ENCODER).read_text(encoding="utf-8"))
            vocabulary = pl.read_parquet((path / VOCABULARY).read_bytes())
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{path} holds no encoder ({one_line(error)}): encode the table again") from error
        tables = {str(name): table for (name,), table in vocabulary.group_by("field")}
        return cls(
            fields=tuple(_field_from_json(data, tables) for data in meta["fields"]),
            label=meta["label"],
            format=meta["format"],
            options=EncodeOptions.from_json(meta["options"]),
        )


def fill_ids(out: IntArray, columns: Iterator[tuple[Field, Any]] | Sequence[tuple[Field, Any]]) -> None:
    """Writes the ids of each field's codes into its columns of ``out``."""
    at = 0
    for field, codes in columns:
        ids = field.ids(codes)
        width = 1 if ids.ndim == 1 else ids.shape[1]
        out[:, at : at + width] = ids.reshape(-1, width)
        at += width


def _vocabulary(field: CategoricalField) -> pl.DataFrame:
    return (
        pl.DataFrame({"value": field.values, "id": field.lookup[:-1]})
        .filter(pl.col("id") != OOV)
        .sort("id")
        .select(pl.lit(field.name).alias("field"), pl.col("value").replace("", None), "id")
    )


def _field_to_json(field: Field) -> dict[str, Any]:
    if isinstance(field, NumericField):
        return {"name": field.name, "edges": [float(e) for e in field.edges], "lookup": field.lookup.tolist()}
    assert isinstance(field, CategoricalField)
    return {"name": field.name, "width": field.width, "separator": field.separator}


def _field_from_json(data: dict[str, Any], tables: dict[str, pl.DataFrame]) -> Field:
    if "edges" in data:
        edges = np.array(data["edges"], dtype=np.float32)
        return NumericField(data["name"], edges, np.array(data["lookup"], dtype=np.int32))
    table = tables.get(data["name"], pl.DataFrame(schema={"value": pl.String, "id": pl.Int32}))
    known, missing = table.drop_nulls("value"), table.filter(pl.col("value").is_null())
    first = int(missing["id"][0]) if missing.height else OOV
    values = pl.concat([pl.Series([""]), known["value"].rename("")])
    lookup = np.concatenate([[first], known["id"].to_numpy(), [OOV]]).astype(np.int32)
    return CategoricalField(data["name"], values, lookup, data["width"], data["separator"])
