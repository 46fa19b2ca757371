"""``optuna-aes demo``: the main job on planted data, where the best possible AUC and the sizes needed are known."""

from __future__ import annotations

from pathlib import Path

import optuna
from rich.console import Console
from rich.text import Text

from optuna_aes.cli.progress import Progress, progress_for
from optuna_aes.cli.run import console_for, print_header
from optuna_aes.cli.tables import percent, print_points
from optuna_aes.data import Dataset
from optuna_aes.data.synthetic import bayes_share, planted
from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.results import Point, Result
from optuna_aes.search.search import Search
from optuna_aes.search.settings import check_seed
from optuna_aes.search.task import Task
from optuna_aes.visualization import report

NAME = "demo"
BUDGET = 0.25
TRIALS, RETRAIN = 300, 5
# Models this small lose as much to the threads' hand-over as they win.
THREADS = 1


def run_demo(out: Path, *, seed: int, quiet: bool) -> None:
    """Makes the data, runs the search and writes the report, each only where it is not done yet.

    Args:
        out: Folder for all of it.
        seed: Seed of data and search.
        quiet: Whether to print nothing.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    check_seed(seed)
    console = console_for(False)
    with progress_for(console, quiet=quiet) as progress:
        dataset = _data(out, seed, progress)
        task = demo_task(dataset)
        search = Search.create(
            task,
            name=NAME,
            storage=f"sqlite:///{out / 'aes.db'}",
            budget=BUDGET,
            trials=TRIALS,
            retrain=RETRAIN,
            seed=seed,
            listener=progress,
        )
        if not quiet:
            print_header(console, search, source=f"planted, seed {seed}")
        result = search.run()
    page = report(result, search.history(), out / "report.html", rows=dataset.schema.cardinalities)
    if not quiet:
        console.print()
        print_points(console, result)
        _print_sentences(console, result, page)


def demo_task(dataset: Dataset) -> Task:
    """The demo's model and training, for planted data of any seed."""
    return Task(
        dataset=dataset,
        model=ModelOptions(hidden=(64, 32), init_std=0.1),
        train=TrainOptions(epochs=6, batch_size=2048, lr=1e-2, l2=1e-3, schedule="cosine", patience=0),
        device="cpu",
        threads=THREADS,
    )


def _data(out: Path, seed: int, progress: Progress) -> Dataset:
    folder = out / "data"
    progress.encode("write", 0, 1)
    made = planted(seed=seed)
    if not folder.exists():
        try:
            made.save(folder)
        except OSError as error:
            raise InputError(f"cannot write {folder} ({error.strerror}): give another folder with --out") from None
    there = Dataset.open(folder)
    if there.fingerprint != made.fingerprint:
        raise InputError(f"{out} holds a demo of another seed or release: give another folder with --out, or remove it")
    progress.encoded(sum(there.rows.values()), len(there.schema.fields))
    return there


def _print_sentences(console: Console, result: Result, page: Path) -> None:
    best = result.best
    if best is None:
        return
    sentences = [
        _best_sentence(result, best),
        _size_sentence(result, best),
        _noise_sentence(result, best),
        f"Open {page} for the front, the sizes along it and the search. On data of your own:",
    ]
    console.print()
    for sentence in sentences:
        console.print(Text(sentence))
    console.print(Text("  optuna-aes search clicks.csv --label click --budget 0.25", style="bold"), soft_wrap=True)


def _best_sentence(result: Result, best: Point) -> str:
    bayes = float(result.facts["bayes_auc"])
    return (
        f"The best point, trial {best.trial}, reaches a test AUC of {best.auc_test:.4f}. The true probabilities reach "
        f"{bayes:.4f}, so that is {percent(bayes_share(best.auc_test, bayes))} of what is possible above chance."
    )


def _size_sentence(result: Result, best: Point) -> str:
    full = result.full["params"]
    text = f"Its tables hold {best.params:,} parameters, {percent(1 - best.params / full)} fewer than at full size"
    reference = next((p for p in result.points if p.uniform and p.params == full), None)
    return f"{text}, whose test AUC is {reference.auc_test:.4f}." if reference else f"{text}."


def _noise_sentence(result: Result, best: Point) -> str:
    noise = [f"{name} {best.sizes[name]}" for name in result.facts["noise"]]
    return f"The fields that are pure noise got these sizes: {', '.join(noise)}."
