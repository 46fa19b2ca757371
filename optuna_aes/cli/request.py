"""From options to a search that is ready to run. What can be refused is refused before anything is read or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.progress import Progress
from optuna_aes.cli.strategy import strategy_of
from optuna_aes.data import Dataset, EncodeOptions, dataset_for
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.precheck import Wish, refuse_early
from optuna_aes.search.search import Search
from optuna_aes.search.settings import Plan
from optuna_aes.search.task import Task
from optuna_aes.storage.remote import is_remote, open_dataset_at

DIM = 16


def prepare(options: SearchOptions, *, picks_at: tuple[float, ...] | None = None) -> Wish:
    """Checks the options, against each other and against the search of that name where there is one.

    Args:
        options: Of the search.
        picks_at: See :class:`optuna_aes.search.settings.Plan`.

    Raises:
        AesError: If something is wrong; nothing has been written then.
    """
    encoding(options)
    wish = wish_of(options, picks_at=picks_at)
    refuse_early(wish)
    return wish


def wish_of(options: SearchOptions, *, picks_at: tuple[float, ...] | None = None) -> Wish:
    """What the options ask for, each checked on its own."""
    strategy = strategy_of(options)
    train = training(options)
    return Wish(
        name=options.name or "",
        storage=options.storage,
        strategy=strategy,
        budget=options.budget,
        plan=Plan(
            trials=options.trials,
            retrain=options.retrain,
            retrain_seeds=options.retrain_seeds,
            reference=options.reference,
            picks_at=picks_at,
        ),
        model=ModelOptions(
            backbone=options.backbone,
            hidden=tuple(options.hidden),
            batch_norm=options.batch_norm,
            dropout=options.dropout,
            cross_layers=options.cross_layers,
            align=options.align,
            init_std=options.init_std,
        ),
        train=train,
        fit=None if options.fit_epochs is None else replace(train, epochs=options.fit_epochs),
        candidates=candidates(options, every=strategy.every_size),
        device=options.device,
        threads=options.threads,
        seed=options.seed,
        artifacts=options.artifacts,
    )


def task_of(wish: Wish, dataset: Dataset) -> Task:
    """The task that a wish makes of its data."""
    return Task(
        dataset=dataset,
        model=wish.model,
        train=wish.train,
        fit=wish.fit,
        candidates=wish.candidates,
        device=wish.device,
        threads=wish.threads,
    )


def create(
    wish: Wish,
    dataset: Dataset,
    listener: Progress,
    *,
    supernet_of: str | None = None,
    trained_by: Sequence[str] = (),
) -> Search:
    """The search, created or taken up."""
    return Search.create(
        task_of(wish, dataset),
        name=wish.name,
        storage=wish.storage,
        strategy=wish.strategy,
        budget=wish.budget,
        trials=wish.plan.trials,
        retrain=wish.plan.retrain,
        retrain_seeds=wish.plan.retrain_seeds,
        reference=wish.plan.reference,
        seed=wish.seed,
        artifacts=wish.artifacts,
        picks_at=wish.plan.picks_at,
        supernet_of=supernet_of,
        trained_by=trained_by,
        listener=listener,
    )


def open_data(options: SearchOptions, progress: Progress | None = None) -> Dataset:
    """The encoded table: from the cache, or encoded or fetched now."""
    assert options.data is not None
    if is_remote(options.data):
        told = Progress() if progress is None else progress
        return open_dataset_at(options.data, cache_dir=options.cache, note=told.note, progress=told.fetch)
    return dataset_for(
        Path(options.data).expanduser(),
        cache_dir=Path(options.cache),
        format=options.format,
        options=encoding(options),
        progress=None if progress is None else progress.encode,
    )


def encoding(options: SearchOptions) -> EncodeOptions:
    """How the table is encoded."""
    if len(options.fractions) != 3:
        raise InputError(
            f"--fractions has {len(options.fractions)} numbers: give three, for training, validation and test"
        )
    return EncodeOptions(
        label=options.label,
        split=options.split,
        fractions=options.fractions,
        seed=options.split_seed,
        min_count=options.min_count,
        numeric=options.numeric,
        buckets=options.buckets,
        multi=tuple(options.multi),
        separator=options.separator,
        max_values=options.max_values,
        drop=tuple(options.drop),
        categorical=tuple(options.categorical),
        numeric_columns=tuple(options.numeric_columns),
        tags=options.tags,
    )


def training(options: SearchOptions) -> TrainOptions:
    """How models are trained."""
    return TrainOptions(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        tables=options.tables,
        table_lr=options.table_lr,
        l2=options.l2,
        decay=options.decay,
        patience=options.patience,
        schedule=options.schedule,
        lr_decay=options.lr_decay,
        compile=options.compile,
        amp=options.amp,
        deterministic=options.deterministic,
    )


def candidates(options: SearchOptions, *, every: bool = False) -> tuple[int, ...]:
    """The sizes to choose from, ascending; where none are given, the powers of two, or every whole number."""
    if options.sizes is None:
        full = DIM if options.dim is None else options.dim
        if full < 1:
            raise InputError(f"--dim {full} is out of range: give at least 1")
        if every:
            return tuple(range(full + 1))
        return tuple(sorted({0, full, *(2**k for k in range(full.bit_length()) if 2**k <= full)}))
    if not options.sizes:
        raise InputError("--sizes is empty: give two or more, such as 0,1,2,4,8,16")
    if options.dim is not None and max(options.sizes) != options.dim:
        raise InputError(
            f"--sizes ends at {max(options.sizes)} and --dim is {options.dim}: make the largest size {options.dim}, or leave "
            "one of the two out"
        )
    return tuple(sorted(options.sizes))
