"""The options of ``optuna-aes search``, each written down once: name, type, default, help and panel.

Typer's command, the keys of a recipe and their types are all made of :class:`SearchOptions`. The defaults are those of the
library's own option classes, which a test compares, as importing them here would load torch for ``--help``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from optuna_aes.cli import values
from optuna_aes.cli.values import Amount, Ints, Names, Numbers

STORAGE = "sqlite:///aes.db"
CACHE = ".optuna_aes/datasets"


def _panel(title: str) -> Callable[..., Any]:
    def option(*flags: str, help: str, **kwargs: Any) -> Any:
        return typer.Option(*flags, help=help, rich_help_panel=title, **kwargs)

    return option


_data, _model, _training = _panel("Data"), _panel("Model"), _panel("Training")
_search, _supernet, _output = _panel("Search"), _panel("Supernet and policy (AdaS&S)"), _panel("Output")

_INTS: dict[str, Any] = {"parser": values.ints, "metavar": "N,N,…"}
_NUMBERS: dict[str, Any] = {"parser": values.numbers, "metavar": "X,X,…"}
_NAMES: dict[str, Any] = {"parser": values.names, "metavar": "NAME,…", "show_default": False}

_REPEATABLE = ("set",)

_NO_NAMES, _HIDDEN, _BUDGET = Names(), Ints((128, 64)), Amount("0.25")
_FRACTIONS, _LEVELS = Numbers((0.8, 0.1, 0.1)), Numbers((1.0, 0.7, 0.5, 0.3))


@dataclass(frozen=True)
class SearchOptions:
    """What ``optuna-aes search`` is asked to do; the comments of the options are their help texts."""

    # Data
    data: Annotated[str | None, _data(metavar="PATH", help="The table, where a recipe names none or another.")] = None
    label: Annotated[
        str | None, _data(help="Column that holds 0 or 1. (default: label; of Avazu click; of MovieLens rating ≥ 4)")
    ] = None
    format: Annotated[str, _data(help="auto, csv, parquet, libfm, criteo, avazu or movielens.")] = "auto"
    split: Annotated[
        str, _data(help="random, or time:COLUMN (earliest rows train, latest test). A folder brings its own split.")
    ] = "random"
    fractions: Annotated[
        Numbers, _data(help="Shares of training, validation and test rows.", show_default="0.8,0.1,0.1", **_NUMBERS)
    ] = _FRACTIONS
    split_seed: Annotated[int, _data(help="Seed of the random split.")] = 0
    min_count: Annotated[int, _data(help="Rarer values share one id.")] = 1
    numeric: Annotated[str, _data(help="How numbers are bucketed: quantile or log2.")] = "quantile"
    buckets: Annotated[int, _data(help="Quantile buckets of a numeric field.")] = 32
    multi: Annotated[Names, _data(help="Columns that hold several values, such as a|b|c.", **_NAMES)] = _NO_NAMES
    separator: Annotated[str, _data(help="What stands between such values.")] = "|"
    max_values: Annotated[int, _data(help="How many of them are kept.")] = 16
    drop: Annotated[Names, _data(help="Columns to leave out.", **_NAMES)] = _NO_NAMES
    categorical: Annotated[Names, _data(help="Columns of decimal numbers that are categories.", **_NAMES)] = _NO_NAMES
    numeric_columns: Annotated[Names, _data(help="Columns of integers that are quantities.", **_NAMES)] = _NO_NAMES
    tags: Annotated[int, _data(help="MovieLens: so many of a film's most used tags become a field.")] = 0
    cache: Annotated[
        str, _data(metavar="FOLDER", help="Where encoded tables are kept, and copies of what lies in S3.")
    ] = CACHE

    # Model
    backbone: Annotated[str, _model(help="mlp, fm, widedeep, deepfm, dcnv2, autoint or neumf (two fields).")] = "deepfm"
    dim: Annotated[int | None, _model(help="Full embedding size D. (default: 16, or the largest of --sizes)")] = None
    sizes: Annotated[
        Ints | None,
        _model(help="Sizes to choose from; 0 drops a field. (default: 0 and the powers of two up to D)", **_INTS),
    ] = None
    hidden: Annotated[Ints, _model(help="Widths of the hidden layers.", show_default="128,64", **_INTS)] = _HIDDEN
    batch_norm: Annotated[bool, _model("--batch-norm/--no-batch-norm", help="Batch norm in the hidden layers.")] = False
    dropout: Annotated[float, _model(help="Share of hidden units dropped in training.")] = 0.0
    cross_layers: Annotated[int, _model(help="Number of cross layers of dcnv2.")] = 3
    align: Annotated[str, _model(help="How sizes meet: pad (zeros) or linear (a map to D).")] = "pad"
    init_std: Annotated[float, _model(help="Spread of the embeddings' initial values.")] = 0.01

    # Training
    epochs: Annotated[int, _training(help="Passes over the training rows, at most.")] = 10
    fit_epochs: Annotated[int | None, _training(help="The same for the supernet. (default: as --epochs)")] = None
    batch_size: Annotated[int, _training(help="Rows of a step.")] = 4096
    lr: Annotated[float, _training(help="Learning rate.")] = 1e-3
    tables: Annotated[str, _training(help="Optimiser of the tables: adam or adagrad, both row-wise.")] = "adam"
    table_lr: Annotated[
        float | None, _training(help="Its learning rate. (default: --lr, and 20 times that for adagrad)")
    ] = None
    schedule: Annotated[str, _training(help="Of the learning rate: plateau, cosine or constant.")] = "plateau"
    lr_decay: Annotated[float, _training(help="Its factor at a plateau.")] = 0.1
    patience: Annotated[
        int, _training(help="Epochs without a better validation AUC until training stops; 0: never.")
    ] = 2
    l2: Annotated[float, _training(help="Weight decay of the embeddings.")] = 0.0
    decay: Annotated[str, _training(help="Which rows decay: touched (of the batch) or all.")] = "touched"
    compile: Annotated[
        bool,
        _training(
            "--compile/--no-compile",
            help="Compile the training step: seconds at first, then faster steps; on CPUs not with dropout.",
        ),
    ] = False
    amp: Annotated[
        bool,
        _training(
            "--amp/--no-amp", help="Training steps in bfloat16: faster on GPUs and on CPUs that can multiply it."
        ),
    ] = False
    deterministic: Annotated[
        bool,
        _training("--deterministic/--no-deterministic", help="The same bits each time on GPUs too, at some speed."),
    ] = False
    device: Annotated[str, _training(help="cpu, cuda, cuda:N, or auto.")] = "auto"
    threads: Annotated[int | None, _training(help="Threads of torch on the CPU. (default: torch's own)")] = None

    workers: Annotated[int, _training(help="Processes on this machine that share the work.")] = 1

    # Search
    strategy: Annotated[
        str, _search(help="The method: adass, a baseline (see the README), or module:Class of your own.")
    ] = "adass"
    set: Annotated[
        Names,
        _search(
            parser=values.names, metavar="NAME=VALUE,…", show_default=False, help="Options of the method; repeatable."
        ),
    ] = _NO_NAMES
    blocks: Annotated[
        str,
        _search(
            help="What has a size of its own: field; frequency, ranges of a large field's values; shares or bands of all."
        ),
    ] = "field"
    parts: Annotated[int, _search(help="How many ranges; with --blocks frequency or shares.")] = 5
    budget: Annotated[
        Amount,
        _search(
            parser=values.amount,
            metavar="BUDGET",
            help="For the embedding tables: a share of full size (0.25, 25%), parameters (100000), or bytes (512MiB).",
        ),
    ] = _BUDGET
    trials: Annotated[int, _search(help="Choices of sizes to score in the supernet.")] = 300
    retrain: Annotated[int, _search(help="How many of the best to train from scratch.")] = 5
    retrain_seeds: Annotated[int, _search(help="How often each.")] = 1
    reference: Annotated[
        bool,
        _search("--reference/--no-reference", help="Train one size for all fields (1, 2, 4, … D) too, to compare."),
    ] = True
    seed: Annotated[int, _search(help="Seed of fit, search and retraining.")] = 0
    name: Annotated[str | None, _search(help="Name of the search. (default: that of the table or recipe)")] = None
    storage: Annotated[
        str, _search(metavar="URL", help="Database of the search: sqlite:///FILE.db, postgresql://…")
    ] = STORAGE
    artifacts: Annotated[
        str | None, _search(metavar="PLACE", help="Checkpoints: a folder or s3://BUCKET. (default: the database)")
    ] = None

    # Supernet and policy
    sharing: Annotated[str, _supernet(help="How the supernet's sizes share weights: prefix or separate.")] = "prefix"
    table_sampling: Annotated[
        str, _supernet(help="Which sizes it trains more: those that lag by probe, grad or loss; or uniform.")
    ] = "probe"
    field_share: Annotated[float, _supernet(help="Share of fields that a step updates, by importance.")] = 1.0
    paths: Annotated[int, _supernet(help="Choices of sizes in one step.")] = 8
    full_share: Annotated[float, _supernet(help="Share of them at full size.")] = 0.1
    levels: Annotated[
        Numbers,
        _supernet(
            help="Shares of the budget to search at, to trace a front.", show_default="1,0.7,0.5,0.3", **_NUMBERS
        ),
    ] = _LEVELS
    estimator: Annotated[str, _supernet(help="What the policy learns from: critic, group or ema.")] = "critic"
    penalty: Annotated[str, _supernet(help="Resource competition penalty: hinge, abs or compete.")] = "hinge"
    group: Annotated[int, _supernet(help="Trials scored together.")] = 12
    score_rows: Annotated[int, _supernet(help="Validation rows that score a trial, at most.")] = 50_000
    race: Annotated[
        float,
        _supernet(help="Share of them that come first, as 0.03: only what may add to the front is scored on all."),
    ] = 0.0

    # Output
    no_run: Annotated[
        bool, _output("--no-run", help="Create the search and train nothing: for workers, who then do it all.")
    ] = False
    quiet: Annotated[bool, _output("--quiet", "-q", help="Print nothing but errors.")] = False
    json: Annotated[bool, _output("--json", help="Print the result as one JSON object; progress goes to stderr.")] = (
        False
    )


SOURCE = typer.Argument(
    metavar="DATA|RECIPE.toml",
    help="A table (a file, or a folder with train.*, valid.* and test.*), an encoded dataset (its folder, or "
    "s3://BUCKET/FOLDER), or a recipe.",
    show_default=False,
)


def option_types() -> dict[str, Any]:
    """The type of every option by name; of those that may be None, the other one."""
    hints = typing.get_type_hints(SearchOptions)
    return {name: _without_none(hint) for name, hint in hints.items()}


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(h for h in typing.get_args(hint) if h is not type(None))
    return hint


def with_search_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command ``(ctx, source, **values)`` the signature that typer reads: one option for each field.

    Options of the command's own, by keyword, stay. What is given several times of those in ``_REPEATABLE`` is joined.
    """

    @functools.wraps(command)
    def joined(ctx: Any, source: str, **values: Any) -> None:
        groups = {name: values.pop(name) for name in _REPEATABLE}
        command(ctx, source, **values, **{n: Names(part for group in g for part in group) for n, g in groups.items()})

    keyword = inspect.Parameter.KEYWORD_ONLY
    annotations = typing.get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=annotations[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind is keyword
    ]
    hints = typing.get_type_hints(SearchOptions, include_extras=True)
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        inspect.Parameter("source", keyword, annotation=Annotated[str, SOURCE]),
        *(
            inspect.Parameter(f.name, keyword, annotation=_asked(f.name, hints[f.name]), default=f.default)
            for f in dataclasses.fields(SearchOptions)
        ),
        *own,
    ]
    joined.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # as inspect documents it
    joined.__annotations__ = {p.name: p.annotation for p in parameters}
    return joined


def _asked(name: str, hint: Any) -> Any:
    """An option's type as the command line takes it: of those in ``_REPEATABLE`` any number."""
    if name not in _REPEATABLE:
        return hint
    kind, option = typing.get_args(hint)
    return Annotated[types.GenericAlias(list, (kind,)), option]
