"""A supernet's training step against a plain one of full size: prefix sharing and separate tables, with AdaS&S's sampling.

``python -m studies.bench.supernet_step [--rounds 7] [--steps 20] [--write]``

Both train with the package's trainer on a planted table of 26 fields and 1 M rows of vocabulary, DeepFM with 3 × 128, batch
4,096, one thread. They take turns of some steps; compared is the CPU time of a step, probes and hooks included.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from optuna_aes.data import Dataset
from optuna_aes.models.model import CTRModel, ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.models.training import Trainer
from optuna_aes.strategies.adass.sampling import SamplingOptions
from optuna_aes.strategies.adass.strategy import AdaSS
from studies.bench.results import ratios, spread, write_section
from studies.bench.tables import table

DIM = 16
CANDIDATES = (0, 1, 2, 4, 8, DIM)
WAYS = {
    "plain step at D": None,
    "prefix, one path a step": AdaSS(sampling=SamplingOptions(paths=1)),
    "prefix, eight paths a step (the default)": AdaSS(),
    "separate tables, one path a step": AdaSS(sharing="separate", sampling=SamplingOptions(paths=1)),
}


class Turns:
    """A training in a thread of its own that goes on for some steps at a time, and is paused in between.

    Args:
        trainer: What trains.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.left, self.go, self.done = 0, threading.Semaphore(0), threading.Semaphore(0)
        self.trainer = trainer
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        self.go.acquire()
        self.trainer.run(on_step=lambda *_: self.step())

    def step(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.release()
            self.go.acquire()

    def turn(self, steps: int) -> float:
        """CPU-seconds of a step, over so many."""
        self.left, started = steps, time.process_time()
        self.go.release()
        self.done.acquire()
        return (time.process_time() - started) / steps


def trainer(way: AdaSS | None, data: Dataset, batch_size: int) -> Trainer:
    model = ModelOptions(backbone="deepfm", hidden=(128, 128, 128))
    train = TrainOptions(epochs=4, batch_size=batch_size, patience=0, schedule="constant")
    if way is None:
        sizes = {f.name: DIM for f in data.schema.fields}
        return Trainer(CTRModel(data.schema, sizes, dim=DIM, options=model), data.train, data.valid, train)
    return way.trainer(way.supernet(data.schema, CANDIDATES, model=model), data, options=train)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="of a turn")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--table", default="1M")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aes-bench")
    parser.add_argument("--write", action="store_true", help="write to studies/bench/RESULTS.md")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    data = table(given.table, given.cache)
    turns = {name: Turns(trainer(way, data, given.batch_size)) for name, way in WAYS.items()}
    times: dict[str, list[float]] = {name: [] for name in turns}
    for one in turns.values():
        one.turn(given.steps)
    for _ in range(given.rounds):
        for name, one in turns.items():
            times[name].append(one.turn(given.steps))
    plain = next(iter(times.values()))
    lines = ["| | ms of CPU a step, median (range) | of the plain step, median (range) |", "|---|---|---|"]
    for name, found in times.items():
        lines.append(f"| {name} | {spread([1e3 * s for s in found], '.1f')} | {spread(ratios(found, plain))} |")
    text = "\n".join(lines)
    print(text)
    if given.write:
        write_section(f"Supernet step: {given.table}, batch {given.batch_size}", text)


if __name__ == "__main__":
    main()
