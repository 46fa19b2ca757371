"""How much memory a search takes: its peak resident size against what it must hold.

``python -m studies.bench.memory [--vocabulary 5M] [--trials 100] [--write]``

A search with AdaS&S, of one epoch and some scored subnets without retraining, runs on a planted table of 26 fields that is
encoded on disk. What it must hold: the supernet's tables with their optimiser state, and the encoded data, of which it
touches every page. The limit is that and 500 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import optuna
import torch

from optuna_aes import ModelOptions, Search, Task, TrainOptions
from studies.bench.results import write_section
from studies.bench.storage import peak_mib
from studies.bench.tables import PLANTED, table

ROWS = 1_000_000
CANDIDATES = (0, 2, 4, 8, 16)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", choices=PLANTED, default="5M")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aes-bench")
    parser.add_argument("--write", action="store_true", help="write to studies/bench/RESULTS.md")
    parser.add_argument("--inner", action="store_true", help="the search itself, in this process")
    given = parser.parse_args(arguments)
    if given.inner:
        print(json.dumps(search(given.vocabulary, given.trials, given.epochs, given.cache)))
        return
    data = table(given.vocabulary, given.cache, rows=ROWS)
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "studies.bench.memory",
        "--inner",
        "--vocabulary",
        given.vocabulary,
    ]
    command += ["--trials", str(given.trials), "--epochs", str(given.epochs), "--cache", str(given.cache)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    rows = sum(f.cardinality for f in data.schema.fields)
    # Weights and first moment as wide as the table, a second moment a row; the first-order weights are a column of their own.
    tables = rows * (2 * CANDIDATES[-1] + 1 + 3) * 4 / 2**20
    encoded = sum(split.ids.nbytes + split.labels.nbytes for _, split in data.splits()) / 2**20
    limit = tables + encoded + 500e6 / 2**20
    text = (
        f"{rows:,} rows of vocabulary at D = {CANDIDATES[-1]}, {ROWS:,} training rows, {given.trials} scored subnets: peak "
        f"{found['peak']:,.0f} MiB. Tables with optimiser state {tables:,.0f}, encoded data {encoded:,.0f}, with 500 MB "
        f"{limit:,.0f} MiB: {'within' if found['peak'] <= limit else 'OVER'} the limit by {abs(limit - found['peak']):,.0f}. "
        f"Imports {found['imports']:,.0f}, after the fit {found['fit']:,.0f} MiB."
    )
    print(text)
    if given.write:
        write_section(f"Memory of a search: {given.vocabulary} rows of vocabulary", text)


def search(vocabulary: str, trials: int, epochs: int, cache: Path) -> dict[str, float]:
    """The peaks of a search, in MiB: after the imports, after the fit, at the end."""
    imports = peak_mib()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    data = table(vocabulary, cache, rows=ROWS)
    model = ModelOptions(backbone="deepfm", hidden=(128, 128, 128))
    train = TrainOptions(epochs=epochs, batch_size=4096)
    task = Task(data, candidates=CANDIDATES, model=model, train=train)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        storage = f"sqlite:///{Path(folder) / 'aes.db'}"
        made = Search.create(
            task, name="memory", storage=storage, budget=0.25, trials=trials, retrain=0, reference=False
        )
        made.run(["fit"])
        fit = peak_mib()
        made.run(["search"])
    return {"imports": imports, "fit": fit, "peak": peak_mib()}


if __name__ == "__main__":
    main()
