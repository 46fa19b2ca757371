"""From a raw table to a dataset folder, in memory that does not grow with the table.

The table is read once: every value becomes a 4-byte code in a scratch file (:mod:`~optuna_aes.data.stage`). Then rows are
split, the fields are fitted to the codes of the training rows, and all codes are mapped to ids. In memory are a few batches,
the dictionaries (while the table is read with a table to look codes up in), and a few bytes a row for label, split and, in a
time split, time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from optuna_aes.data.ahead import ahead
from optuna_aes.data.coders import SAMPLE, Coder, make_coder
from optuna_aes.data.dataset import (
    SPLITS,
    Dataset,
    IntArray,
    LabelArray,
    atomic_folder,
    join_digests,
    new_digest,
    write_schema,
)
from optuna_aes.data.encoder import Encoder, fill_ids
from optuna_aes.data.fields import Codes, Field
from optuna_aes.data.labels import check_classes, parse_labels
from optuna_aes.data.options import EncodeOptions
from optuna_aes.data.plan import Plan, drop_hint, make_plan
from optuna_aes.data.sources import Source, read_source
from optuna_aes.data.sources.base import Batch, one_line
from optuna_aes.data.splits import TRAIN, SplitArray, cut_validation, random_split, time_split
from optuna_aes.data.stage import Block, Stage
from optuna_aes.data.times import TimeReader
from optuna_aes.errors import DataError

Progress = Callable[[str, int, "int | None"], None]


def encode(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    format: str = "auto",
    options: EncodeOptions | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Encodes a raw table into a dataset folder, whole or not at all.

    Args:
        path: A file, a folder with ``train.*``, ``test.*`` and perhaps ``valid.*``, or a MovieLens folder.
        out: The folder to write; an encoded dataset there is replaced.
        format: The table's format; ``"auto"`` finds it out.
        options: How to encode; see :class:`EncodeOptions`.
        progress: Called with a stage's name (``"read"``, ``"fit"``, ``"write"``), how much is done, and of how much: bytes of
            text files or rows.

    Returns:
        The dataset, memory-mapped from ``out``.

    Raises:
        DataError: If the table or an option cannot be used; then nothing is written.
    """
    options = options or EncodeOptions()
    progress = progress or (lambda stage, done, total: None)
    source = read_source(path, format=format, tags=options.tags)
    plan = make_plan(source, options)
    coders = [make_coder(name, kind, options) for name, kind in plan.fields]
    with atomic_folder(Path(out)) as folder:
        scratch = folder / "codes.tmp"
        with Stage(scratch, coders) as stage:
            rows = _read(source, plan, coders, stage, progress)
            for coder in coders:
                coder.end_of_codes()
            split = _split(source, plan, options, rows)
            for code, name in enumerate(SPLITS):
                check_classes(rows.labels[split == code], path=source.path, split=name, label=plan.label)
            fields = _fit(source, stage, coders, split, progress)
            encoder = Encoder(fields=fields, label=plan.label, format=source.format, options=options)
            _write(folder, stage, encoder, split, rows.labels, progress)
        scratch.unlink()
        encoder.save(folder)
    return Dataset.open(out)


class _Rows(NamedTuple):
    """What is known of every row besides its codes."""

    labels: LabelArray
    given: SplitArray
    times: npt.NDArray[np.float64] | None


def _read(source: Source, plan: Plan, coders: Sequence[Coder], stage: Stage, progress: Progress) -> _Rows:
    """Codes all rows of all tables into the stage."""
    labels: list[LabelArray] = []
    given: list[SplitArray] = []
    clock = TimeReader(plan.time, path=source.path) if plan.time else None
    before = 0
    for name, table in source.tables:
        first = stage.rows
        batches = table.batches(plan.columns, numeric=plan.numeric)
        for (frame, position), codes in ahead(partial(_code, table.path, coders), batches):
            row = stage.rows - first + 1
            labels.append(parse_labels(frame[plan.label], path=table.path, first=row))
            given.append(np.full(frame.height, SPLITS.index(name) if name else TRAIN, dtype=np.uint8))
            if clock:
                clock.add(frame[clock.column], first=row)
            stage.append(codes)
            progress("read", before + position, source.size)
        if stage.rows == first:
            raise DataError(f"{table.path} holds no rows: give a table with rows of both classes")
        before += table.size
    return _Rows(np.concatenate(labels), np.concatenate(given), clock.times() if clock else None)


def _code(path: Path, coders: Sequence[Coder], batch: Batch) -> list[Codes]:
    """Codes of a batch. Which code a new value gets is chance where two batches are coded at once; ids do not tell."""
    frame = batch.frame
    try:
        values = frame.select(c.values(frame.schema[c.name]).alias(c.name) for c in coders)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{path} holds values that cannot be encoded ({one_line(error)}): see the option drop"
        ) from error
    return [coder.codes(column) for coder, column in zip(coders, values.iter_columns(), strict=True)]


def _split(source: Source, plan: Plan, options: EncodeOptions, rows: _Rows) -> SplitArray:
    names = {name for name, _ in source.tables}
    if names == set(SPLITS):
        return rows.given
    if None not in names:
        return cut_validation(rows.given, options.fractions, seed=options.seed)
    if rows.times is not None and plan.time is not None:
        return time_split(rows.times, options.fractions, column=plan.time)
    return random_split(len(rows.labels), options.fractions, seed=options.seed)


def _fit(
    source: Source, stage: Stage, coders: Sequence[Coder], split: SplitArray, progress: Progress
) -> tuple[Field, ...]:
    """Fits every field to the training rows, and refuses fields that say nothing."""
    train = int(np.count_nonzero(split == TRAIN))
    every = max(1, train // SAMPLE)

    def chosen(block: Block) -> list[Codes]:
        at = np.flatnonzero(split[block.rows] == TRAIN)
        return [codes[at] for codes in block.columns]

    for block, columns in ahead(chosen, stage.blocks()):
        for coder, codes in zip(coders, columns, strict=True):
            coder.observe(codes, every=every)
        progress("fit", block.rows.stop, stage.rows)
    constant = [c.name for c in coders if not c.varies()]
    if constant:
        names = ", ".join(map(repr, constant))
        raise DataError(
            f"{source.path}: {names} held one value in all {train} training rows and can tell nothing: {drop_hint(constant)}"
        )
    fields = tuple(coder.fit() for coder in coders)
    rare = [f.name for f in fields if f.spec.cardinality == 1]
    if rare:
        raise DataError(
            f"{source.path}: no value of {', '.join(map(repr, rare))} occurs min_count times in {train} training rows: "
            f"lower min_count, or {drop_hint(rare)}"
        )
    return fields


def _write(
    folder: Path, stage: Stage, encoder: Encoder, split: SplitArray, labels: LabelArray, progress: Progress
) -> None:
    """Maps the stage's codes to ids, appends them to the files of their splits, and ends with the schema."""
    columns = encoder.schema.columns
    digests = [(new_digest(), new_digest()) for _ in SPLITS]
    with ExitStack() as stack:
        files = [stack.enter_context((folder / f"{name}_ids.npy").open("wb")) for name in SPLITS]
        for code, name in enumerate(SPLITS):
            own = labels[split == code]
            _write_header(files[code], (len(own), columns))
            np.save(folder / f"{name}_labels.npy", own)
            digests[code][1].update(own.data)

        def mapped(block: Block) -> list[IntArray]:
            rows, codes = block
            ids = np.empty((rows.stop - rows.start, columns), dtype=np.int32)
            fill_ids(ids, zip(encoder.fields, codes, strict=True))
            return [ids[split[rows] == code] for code in range(len(SPLITS))]

        def hashed(block: tuple[Block, list[IntArray]]) -> None:
            for part, (digest, _) in zip(block[1], digests, strict=True):
                digest.update(part.data)

        # Blocks are mapped two at a time, and hashed one by one, in order, while the one before is written.
        for ((rows, _), parts), _ in ahead(hashed, ahead(mapped, stage.blocks()), depth=1, threads=1):
            for part, file in zip(parts, files, strict=True):
                file.write(part.data)
            progress("write", rows.stop, stage.rows)
    final = {name: (ids.digest(), labels.digest()) for name, (ids, labels) in zip(SPLITS, digests, strict=True)}
    write_schema(folder, encoder.schema, fingerprint=join_digests(encoder.schema, final))


def _write_header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """Starts a .npy file of int32 whose rows are appended later."""
    descr = np.lib.format.dtype_to_descr(np.dtype(np.int32))
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
