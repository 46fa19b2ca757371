"""The encoded dataset: int32 ids by field, 0/1 labels, in three splits, with a fingerprint of the content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from optuna_aes.errors import DataError

IntArray = npt.NDArray[np.int32]
LabelArray = npt.NDArray[np.uint8]
FieldKind = Literal["categorical", "numeric", "multi"]

FORMAT_VERSION = 1
SPLITS = ("train", "valid", "test")
SCHEMA = "schema.json"
DATASET_FILES = (SCHEMA, *(f"{split}_{part}.npy" for split in SPLITS for part in ("ids", "labels")))
OOV = 0  # row 0 of every field's table: values not seen, or too rare, in training
PAD = -1  # fills the unused columns of a multi-valued field


@dataclass(frozen=True)
class FieldSpec:
    """One encoded field.

    Args:
        name: The column's name in the raw table.
        kind: ``"categorical"``, ``"numeric"`` (bucketed), or ``"multi"`` (a bag of values, mean-pooled).
        cardinality: Rows of the field's embedding table; row 0 is the out-of-vocabulary id.
        width: Columns the field takes in the id matrix: 1, or the largest bag of a ``"multi"`` field.
    """

    name: str
    kind: FieldKind
    cardinality: int
    width: int = 1


@dataclass(frozen=True)
class Schema:
    """The fields of an encoded dataset, in the order of their columns, and the label's name."""

    fields: tuple[FieldSpec, ...]
    label: str = "label"

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        if not names or len(set(names)) < len(names):
            raise DataError(f"schema must have one or more fields of different names, not {names}")
        for f in self.fields:
            if f.cardinality < 1 or f.width < 1 or (f.kind != "multi" and f.width > 1):
                raise DataError(
                    f"field {f.name!r} of kind {f.kind!r} cannot have cardinality {f.cardinality} and width {f.width}"
                )

    @property
    def cardinalities(self) -> dict[str, int]:
        """Rows of each field's table, by name."""
        return {f.name: f.cardinality for f in self.fields}

    @property
    def columns(self) -> int:
        """Columns of the id matrix."""
        return sum(f.width for f in self.fields)

    def to_json(self) -> dict[str, Any]:
        """The schema as JSON-ready values."""
        return {"format": FORMAT_VERSION, "label": self.label, "fields": [asdict(f) for f in self.fields]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The inverse of :meth:`to_json`; raises :class:`DataError` for another format version."""
        if data.get("format") != FORMAT_VERSION:
            raise DataError(
                f"schema has format {data.get('format')!r}, this release reads {FORMAT_VERSION}: encode the table again"
            )
        return cls(fields=tuple(FieldSpec(**f) for f in data["fields"]), label=data["label"])


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Args:
        ids: int32, shape ``(rows, columns)``; 0 is out-of-vocabulary, -1 pads a multi-valued field.
        labels: uint8, shape ``(rows,)``, 0 or 1.
    """

    ids: IntArray
    labels: LabelArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """An encoded table: a schema and three splits, in memory or memory-mapped from a folder.

    Args:
        schema: Fields and label.
        train: Training rows; the encoder saw only these.
        valid: Validation rows, for early stopping and for the search.
        test: Test rows, read once, at the end of retraining.
        fingerprint: Hex digest of schema, ids and labels.
        folder: Where it lies on disk, if it does.
        facts: Anything known of the data that a reader of results wants, such as ``bayes_auc`` of planted data.
        origin: URL of the object store that it was fetched from, if it was.
    """

    schema: Schema
    train: Split
    valid: Split
    test: Split
    fingerprint: str
    folder: Path | None = None
    facts: Mapping[str, Any] | None = None
    origin: str | None = None

    @classmethod
    def from_arrays(
        cls, schema: Schema, splits: Mapping[str, Split], *, facts: Mapping[str, Any] | None = None
    ) -> Dataset:
        """A dataset of arrays in memory, checked for shape, dtype, id range and labels.

        Raises:
            DataError: If an array does not fit the schema, a split is empty, or a split has one class only.
        """
        for name in SPLITS:
            if name not in splits:
                raise DataError(f"splits has no {name!r}: give {', '.join(SPLITS)}")
            _check_shape(schema, name, splits[name])
            _check_content(schema, name, splits[name])
        return cls(
            schema=schema,
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            fingerprint=content_fingerprint(schema, splits),
            facts=facts,
        )

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Dataset:
        """Memory-maps a folder that :meth:`save` or the encoder wrote.

        Raises:
            DataError: If the folder is not an encoded dataset, or is of another format version.
        """
        path = Path(folder)
        try:  # everything here may be half written, edited by hand, or another program's
            meta = json.loads((path / SCHEMA).read_text(encoding="utf-8"))
            splits = {
                name: Split(
                    ids=np.load(path / f"{name}_ids.npy", mmap_mode="r"),
                    labels=np.load(path / f"{name}_labels.npy", mmap_mode="r"),
                )
                for name in SPLITS
            }
            schema, fingerprint = Schema.from_json(meta), str(meta["fingerprint"])
            for name in SPLITS:
                _check_shape(schema, name, splits[name])
        except DataError:
            raise
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not an encoded dataset ({error}): encode the table again") from error
        return cls(
            schema=schema,
            train=splits["train"],
            valid=splits["valid"],
            test=splits["test"],
            fingerprint=fingerprint,
            folder=path,
            facts=meta.get("facts"),
        )

    def save(self, folder: str | os.PathLike[str]) -> Dataset:
        """Writes the dataset to ``folder``, whole or not at all, and returns it memory-mapped from there."""
        with atomic_folder(Path(folder)) as tmp:
            for name, split in self.splits():
                np.save(tmp / f"{name}_ids.npy", split.ids)
                np.save(tmp / f"{name}_labels.npy", split.labels)
            write_schema(tmp, self.schema, fingerprint=self.fingerprint, facts=self.facts)
        return Dataset.open(folder)

    def splits(self) -> Iterator[tuple[str, Split]]:
        """The three splits with their names."""
        for name in SPLITS:
            yield name, getattr(self, name)

    @property
    def rows(self) -> dict[str, int]:
        """Rows by split."""
        return {name: len(split) for name, split in self.splits()}


def write_schema(folder: Path, schema: Schema, *, fingerprint: str, facts: Mapping[str, Any] | None = None) -> None:
    """Writes ``schema.json`` of an encoded dataset."""
    meta = {**schema.to_json(), "fingerprint": fingerprint, "facts": dict(facts or {})}
    (folder / SCHEMA).write_text(json.dumps(meta, indent=1, ensure_ascii=False), encoding="utf-8")


class atomic_folder:  # noqa: N801 - used as a context manager, like tempfile's
    """Builds a folder beside its final place and moves it there only when the block ends well.

    Raises:
        DataError: If something else than an encoded dataset is in the way, or the folder cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        if self.target.exists() and not (self.target / SCHEMA).exists() and not _is_empty_folder(self.target):
            raise DataError(f"{self.target} is there and is no encoded dataset: choose another folder to write to")
        self._tmp = self.target.parent / f".{self.target.name}-{secrets.token_hex(4)}"
        self._new = [p for p in self.target.parents if not p.exists()]
        try:
            self._tmp.mkdir(parents=True)
        except OSError as error:
            raise DataError(
                f"cannot write to {self.target.parent} ({error.strerror}): choose another folder"
            ) from error
        return self._tmp

    def __exit__(self, exc_type: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        try:
            if exc_type is None:
                self._move()
        finally:
            shutil.rmtree(self._tmp, ignore_errors=True)
            if exc_type is not None:
                with contextlib.suppress(OSError):  # not empty: another process writes there
                    for parent in self._new:
                        parent.rmdir()
        if isinstance(exc, OSError):
            raise DataError(
                f"cannot write {self.target} ({exc.strerror}): make room, or choose another folder"
            ) from exc

    def _move(self) -> None:
        if self.target.exists():
            shutil.rmtree(self.target)
        try:
            self._tmp.rename(self.target)
        except OSError:
            if not (self.target / SCHEMA).exists():  # not that another process wrote the same at the same time
                raise


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_shape(schema: Schema, name: str, split: Split) -> None:
    ids, labels = split.ids, split.labels
    if ids.dtype != np.int32 or ids.ndim != 2 or ids.shape[1] != schema.columns:
        raise DataError(
            f"{name}.ids must be int32 of shape (rows, {schema.columns}), not {ids.dtype} of shape {ids.shape}"
        )
    if labels.dtype != np.uint8 or labels.shape != (len(ids),):
        raise DataError(
            f"{name}.labels must be uint8 of shape ({len(ids)},), not {labels.dtype} of shape {labels.shape}"
        )
    if len(ids) == 0:
        raise DataError(f"the {name} split is empty: give more rows, or larger fractions")


def _check_content(schema: Schema, name: str, split: Split) -> None:
    ids, labels = split.ids, split.labels
    classes = np.unique(labels)
    if not set(classes.tolist()) <= {0, 1}:
        raise DataError(f"{name}.labels must be 0 or 1, not {classes[:5].tolist()}")
    if len(classes) < 2:
        raise DataError(f"the {name} split holds only label {int(classes[0])}: AUC needs both classes")
    column = 0
    for field in schema.fields:
        block = ids[:, column : column + field.width]
        low, high = int(block.min()), int(block.max())
        if low < (PAD if field.kind == "multi" else 0) or high >= field.cardinality:
            raise DataError(
                f"{name}.ids of field {field.name!r} reach from {low} to {high}, outside [0, {field.cardinality})"
            )
        column += field.width


def content_fingerprint(schema: Schema, splits: Mapping[str, Split]) -> str:
    """Hex digest of schema, ids and labels: equal for equal content, wherever and however it is kept."""
    digests = {}
    for name in SPLITS:
        ids, labels = new_digest(), new_digest()
        ids.update(np.ascontiguousarray(splits[name].ids).data)
        labels.update(np.ascontiguousarray(splits[name].labels).data)
        digests[name] = (ids.digest(), labels.digest())
    return join_digests(schema, digests)


def new_digest() -> hashlib.blake2b:
    """The hash of one array's bytes, for a writer that never holds the whole array."""
    return hashlib.blake2b(digest_size=16)


def join_digests(schema: Schema, digests: Mapping[str, tuple[bytes, bytes]]) -> str:
    """The fingerprint of a schema and, for each split, the digests of ids and labels."""
    whole = new_digest()
    whole.update(json.dumps(schema.to_json(), sort_keys=True).encode())
    for name in SPLITS:
        for digest in digests[name]:
            whole.update(digest)
    return whole.hexdigest()
