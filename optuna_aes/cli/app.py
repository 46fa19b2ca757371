"""The commands, and the one way into them: :func:`main`."""

from __future__ import annotations

import json as jsonlib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from optuna_aes.cli import exits
from optuna_aes.cli.find import find_record
from optuna_aes.cli.options import CACHE, STORAGE, SearchOptions, with_search_options
from optuna_aes.cli.stopping import stoppable
from optuna_aes.cli.storage import app as storage_app
from optuna_aes.cli.values import Names, Numbers, names, numbers

if TYPE_CHECKING:
    from optuna_aes.search.read import Record

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="rich",
    help="Automatic embedding-size search for recommender models.",
    epilog="Exit codes: 0 done, 2 the input, 130 stopped by Ctrl-C, 1 a bug. OPTUNA_AES_DEBUG=1 shows tracebacks.",
)

app.add_typer(storage_app, name="storage")

SHARES = Numbers((0.1, 0.25, 0.5))
STABLE = Names(("adass", "dnis", "sham", "random"))
DEFAULT_STRATEGIES = Names(("adass", "random", "tpe", "nsga2", "gp", "mde", "magnitude", "saliency"))

Name = Annotated[str | None, typer.Option(help="Name of the search; may be left out where the storage holds one only.")]
Storage = Annotated[str, typer.Option(metavar="URL", help="Database of the search.")]
Backbone = Annotated[
    str | None, typer.Option(metavar="NAME", help="The sizes retrained in another backbone than they were found with.")
]
Inherited = Annotated[bool, typer.Option("--inherited", help="The sizes trained on from the supernet's weights.")]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE", help="The encoded dataset, where it is not in its old place: FOLDER or s3://BUCKET/FOLDER."
    ),
]
Cache = Annotated[str, typer.Option(metavar="FOLDER", help="Where copies of what lies in S3 are kept.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto: the GPU with most free memory.")]
Threads = Annotated[int | None, typer.Option(help="Threads of torch on the CPU. (default: torch's own)")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: What stands after ``optuna-aes``; the process's own by default.

    Returns:
        The exit code.
    """
    if arguments is None:
        code = main(sys.argv[1:])
        # The interpreter takes a while to end; what was done or stopped stays so, whatever signal comes now.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        return code
    given = list(arguments)
    if not sys.warnoptions and not exits.debugging():
        warnings.simplefilter("ignore")  # of libraries, which a user of the command line can do nothing about
    try:
        command = typer.main.get_command(app)
        with stoppable(), command.make_context("optuna-aes", given or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.DONE
    except (Exception, KeyboardInterrupt) as error:
        return exits.report(error)
    return exits.DONE


@app.command(
    help="Search embedding sizes for a table. Stopped at any time, the same command goes on where it was.",
    epilog=(
        'A recipe is a TOML file of these options: data = "PATH", label = "click", hidden = [400, 400], batch_norm = true, … '
        "All keys stand at the top, without sections; ${NAME} in a text is an environment variable; paths start from the "
        "current folder, as they do here. Options of the command line win over the recipe's."
    ),
)
@with_search_options
def search(ctx: Any, source: str, **values: Any) -> None:
    """See the command's help."""
    from optuna_aes.cli.recipe import merged
    from optuna_aes.cli.run import run_search

    explicit = {name for name in values if _is_explicit(ctx, name)}
    run_search(merged(source, values, explicit))


def _is_explicit(ctx: Any, name: str) -> bool:
    origin = ctx.get_parameter_source(name)
    return origin is not None and origin.name == "COMMANDLINE"


@app.command(help="Search sizes for planted data, whose best possible AUC is known: a few minutes, nothing needed.")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, database and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of data and search.")] = 0,
    quiet: Quiet = False,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.demo import run_demo

    run_demo(out, seed=seed, quiet=quiet)


@app.command(
    help="Run several strategies on one table with equal budgets, trials and seeds, and compare what they found.",
    epilog=(
        "Every strategy and seed is a search of its own, NAME.STRATEGY.SEED, that status, pareto and export know too. "
        "Each picks one choice of sizes for every one of --shares, whatever --budget, --levels and --retrain a recipe has. "
        "Stopped at any time, the same command goes on. Those that can share one supernet do, and are charged for it each; "
        "the same sizes and seed are trained once."
    ),
)
@with_search_options
def compare(
    ctx: Any,
    source: str,
    *,
    strategies: Annotated[
        Names,
        typer.Option(
            parser=names, metavar="NAME,…", show_default=False, help="Which. (default: adass and all baselines)"
        ),
    ] = DEFAULT_STRATEGIES,
    seeds: Annotated[int, typer.Option(help="Searches of each, with seeds from --seed on.")] = 3,
    shares: Annotated[
        Numbers,
        typer.Option(
            parser=numbers,
            metavar="X,X,…",
            show_default="0.1,0.25,0.5",
            help="Budgets to compare at, of full size; the largest is that of the searches.",
        ),
    ] = SHARES,
    trainings: Annotated[
        int, typer.Option(help="Trials of the strategies that train each of them from scratch, in place of --trials.")
    ] = 20,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table.")] = None,
    **values: Any,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.compare import run_compare
    from optuna_aes.cli.fleet import Fleet

    options = _options_of_several(ctx, source, values)
    run_compare(Fleet(options, strategies, seeds, shares, trainings), html=html, markdown=markdown)


@app.command(
    help="Search with several seeds, on one supernet and each on its own, and tell how far the sizes found agree.",
    epilog=(
        "Nothing is trained from scratch. The searches are those of compare, NAME.STRATEGY.SEED, and on the supernet of the "
        "first NAME.STRATEGY.SEED.shared; what compare has done already is taken as it is."
    ),
)
@with_search_options
def stability(
    ctx: Any,
    source: str,
    *,
    strategies: Annotated[
        Names, typer.Option(parser=names, metavar="NAME,…", show_default="adass,dnis,sham,random", help="Which.")
    ] = STABLE,
    seeds: Annotated[int, typer.Option(help="Searches of each, with seeds from --seed on.")] = 3,
    shares: Annotated[
        Numbers,
        typer.Option(
            parser=numbers, metavar="X,X,…", show_default="0.1,0.25,0.5", help="Budgets to pick at, of full size."
        ),
    ] = SHARES,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the table.")] = None,
    **values: Any,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.fleet import Fleet
    from optuna_aes.cli.stability import run_stability

    options = _options_of_several(ctx, source, values)
    run_stability(Fleet(options, strategies, seeds, shares), html=html, markdown=markdown)


def _options_of_several(ctx: Any, source: str, values: dict[str, Any]) -> SearchOptions:
    """The options that several searches share."""
    from optuna_aes.cli.recipe import merged
    from optuna_aes.errors import InputError

    explicit = {name for name in values if _is_explicit(ctx, name)}
    for name in ("budget", "levels", "retrain", "strategy"):
        if name in explicit:
            raise InputError(
                f"--{name} is not for several searches: give budgets with --shares, methods with --strategies"
            )
    return merged(source, values, explicit)


@app.command(
    help="Work on a search that exists, next to other workers, until it is done everywhere. Everything but these options "
    "comes from the search. Stopped or killed, its work is taken over by the others."
)
def worker(
    name: Name = None,
    storage: Storage = STORAGE,
    data: Data = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    threads: Threads = None,
    poll: Annotated[float, typer.Option(metavar="S", help="Seconds between looks while others are busy.")] = 2.0,
    quiet: Quiet = False,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.existing import Here
    from optuna_aes.cli.worker import run_worker

    record = find_record(name, storage, wait=60)  # a worker may be started while its database is not
    run_worker(record, Here(data, cache, device, threads, quiet), poll=poll)


@app.command(
    help="Train what a search picked in another way: in another backbone, or from the weights it had in the supernet.",
    epilog="It is a study of its own beside the search's; status, pareto and export take the same --backbone or --inherited.",
)
def retrain(
    name: Name = None,
    storage: Storage = STORAGE,
    backbone: Backbone = None,
    inherited: Inherited = False,
    data: Data = None,
    cache: Cache = CACHE,
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.existing import Here
    from optuna_aes.cli.variant import run_variant

    here = Here(data, cache, device, threads, quiet)
    run_variant(find_record(name, storage), here, backbone=backbone, inherited=inherited)


@app.command(help="How far a search is.")
def status(
    name: Name = None,
    storage: Storage = STORAGE,
    json: Json = False,
    backbone: Backbone = None,
    inherited: Inherited = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look on until it is done: workers, speed, what is stale, time left.")
    ] = False,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.tables import status_table
    from optuna_aes.errors import InputError
    from optuna_aes.search.read import status as status_of

    if json and watch:
        raise InputError("--json and --watch do not go together: ask with --json again and again")
    record = find_record(name, storage, backbone, inherited)
    if watch:
        from optuna_aes.cli.watch import watch as look_on

        look_on(_console(), record)
        return
    found = status_of(record)
    if json:
        _print_json(found)
    else:
        _console().print(status_table(found, epochs=int(record.settings["fit"]["epochs"])))


@app.command(help="The retrained points and their front.")
def pareto(
    name: Name = None,
    storage: Storage = STORAGE,
    json: Json = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with figures: one file, works offline.")
    ] = None,
    backbone: Backbone = None,
    inherited: Inherited = False,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.tables import print_points
    from optuna_aes.errors import InputError
    from optuna_aes.search.read import history, result

    record = find_record(name, storage, backbone, inherited)
    found = result(record)
    if html is not None:
        if not found.points:
            raise InputError(f"{_how_far(record)}: there is nothing for a report yet")
        from optuna_aes.visualization import report

        report(found, history(record), html, rows=record.settings["fields"])
    if json:
        _print_json(found.to_json())
    elif not found.points:
        print(_how_far(record))
    else:
        print_points(_console(), found)
        if html is not None:
            print(f"report: {html}")


@app.command(help="Write a retrained model to a folder, ready for optuna_aes.load_model.")
def export(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write.")],
    name: Name = None,
    storage: Storage = STORAGE,
    trial: Annotated[
        int | None,
        typer.Option(help="A trial that pareto lists. (default: the best on validation inside the budget)"),
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    backbone: Backbone = None,
    inherited: Inherited = False,
) -> None:
    """See the command's help."""
    record = find_record(name, storage, backbone, inherited)
    from optuna_aes.search.data import open_dataset
    from optuna_aes.search.export import export_model

    written = export_model(record, out, trial=trial, dataset=open_dataset(record, data, cache_dir=cache))
    print(f"wrote {written}: load it with optuna_aes.load_model({str(written)!r})")


@app.command(help="Open Optuna's dashboard on a storage; with --name, with this search's front as a figure in it.")
def dashboard(
    storage: Storage = STORAGE,
    name: Annotated[str | None, typer.Option(help="Search whose front to publish in its study.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8080,
) -> None:
    """See the command's help."""
    from optuna_aes.cli.dashboard import run_dashboard

    run_dashboard(storage, name=name, host=host, port=port)


def _how_far(record: Record) -> str:
    """How far a search is, in one line."""
    from optuna_aes.search.read import status as status_of

    stages = status_of(record)["stages"]
    fit, scored, retrain = stages["fit"], stages["search"], stages["retrain"]
    return (
        f"search {record.name!r} has no retrained points yet: fit at epoch {fit['epochs']} of "
        f"{record.settings['fit']['epochs']}, {scored['finished']} of {scored['requested']} trials scored, "
        f"{retrain['finished']} of {retrain['requested']} trained from scratch"
    )


def _console() -> Console:
    """For tables: a pipe has no width, and gets one that no table needs to be squeezed into."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(highlight=False, width=120)
    return console


def _print_json(value: Any) -> None:
    print(jsonlib.dumps(value, indent=2, ensure_ascii=False))
