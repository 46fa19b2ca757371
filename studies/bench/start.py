"""How long large tables take to start, against an epoch: a model or supernet is made and initialised, with its optimisers.

``python -m studies.bench.start [--table 5M] [--rounds 5] [--steps 40] [--write]``

CPU-seconds of one thread on a planted table of 26 fields and 1 M training rows, DeepFM with 3 × 128, D = 16, batch 4,096. The
epoch is that of the plain model, from some of its steps, without validation. Wanted: a tenth of it at most.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from studies.bench.results import ratios, spread, write_section
from studies.bench.supernet_step import DIM, WAYS, Turns, trainer
from studies.bench.tables import PLANTED, table

WHAT = {
    f"model, every field of size {DIM}": "plain step at D",
    "supernet, prefix": "prefix, eight paths a step (the default)",
    "supernet, separate tables": "separate tables, one path a step",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=PLANTED, default="5M")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of a round, to say what an epoch takes")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aes-bench")
    parser.add_argument("--write", action="store_true", help="write to studies/bench/RESULTS.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = table(given.table, given.cache)
    plain = trainer(None, data, given.batch_size)
    turns = Turns(plain)
    turns.turn(given.steps)
    epochs: list[float] = []
    starts: dict[str, list[float]] = {what: [] for what in WHAT}
    for _ in range(given.rounds):
        epochs.append(turns.turn(given.steps) * plain.steps_per_epoch)
        for what, way in WHAT.items():
            started = time.process_time()
            made = trainer(WAYS[way], data, given.batch_size)
            starts[what].append(time.process_time() - started)
            del made
    lines = [
        f"An epoch takes {spread(epochs, '.1f', ' s')}. Wanted: a tenth of it at most.",
        "",
        "| | CPU-seconds to make, median (range) | of an epoch, median (range) |",
        "|---|---|---|",
    ]
    for what, found in starts.items():
        lines.append(f"| {what} | {spread(found)} | {spread(ratios(found, epochs), '.3f')} |")
    text = "\n".join(lines)
    print(text)
    if given.write:
        write_section(f"Start: {given.table}, batch {given.batch_size}", text)


if __name__ == "__main__":
    main()
