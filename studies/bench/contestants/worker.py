"""A contestant in a process of its own: trains while it is told to, and waits in between.

``python -m studies.bench.contestants.worker '{"contestant": "ours", "table": "1M", …}'``

Every line read is the CPU-seconds and the rows of a turn, which ends when both are reached or the limit of rows is, and is
answered with rows and CPU-seconds of this process and its children; ``predict`` is answered with the test AUC.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from studies.bench.contestants import bare
from studies.bench.contestants.base import Contestant, Work
from studies.bench.contestants.ours import Ours
from studies.bench.contestants.peers import DeepCtr, FuxiCtr
from studies.bench.tables import table

# Libraries print what they like to standard output: from here on, that goes to standard error.
PARENT = os.fdopen(os.dup(1), "w") if __name__ == "__main__" else sys.stdout

ADAGRAD = ("adagrad", bare.Fbgemm.lr)

CONTESTANTS = {
    "ours": lambda work: Ours(work, compiled=False),
    "ours, compiled": lambda work: Ours(work, compiled=True),
    "ours, row-wise Adagrad, compiled": lambda work: Ours(work, compiled=True, tables=ADAGRAD),
    "ours, compiled, bfloat16": lambda work: Ours(work, compiled=True, amp=True),
    "ours, row-wise Adagrad, compiled, bfloat16": lambda work: Ours(work, compiled=True, amp=True, tables=ADAGRAD),
    "bare, dense Adam": lambda work: bare.Dense(work, compiled=False),
    "bare, dense Adam, compiled": lambda work: bare.Dense(work, compiled=True),
    "bare, SparseAdam, compiled": lambda work: bare.Sparse(work, compiled=True),
    "bare, row-wise Adam": lambda work: bare.Rows(work, compiled=False),
    "bare, row-wise Adam, compiled": lambda work: bare.Rows(work, compiled=True),
    "bare, FBGEMM row-wise Adagrad, compiled": lambda work: bare.Fbgemm(work, compiled=True),
    "bare, dense Adam, compiled, bfloat16": lambda work: bare.Dense(work, compiled=True, amp=True),
    "bare, FBGEMM row-wise Adagrad, compiled, bfloat16": lambda work: bare.Fbgemm(work, compiled=True, amp=True),
    "DeepCTR-Torch": DeepCtr,
    "FuxiCTR": FuxiCtr,
}


class Finished(Exception):  # noqa: N818 - not an error
    """The training has had all the rows that it is to have."""


class Rounds:
    """Counts rows, and waits for the parent at every round's end.

    Args:
        work: What is trained.
    """

    def __init__(self, work: Work) -> None:
        self.batch, self.epoch = work.batch_size, len(work.dataset.train)
        self.steps = -(-self.epoch // self.batch)
        self.step = 0
        self.begin()
        self.started = cpu_seconds()

    def begin(self) -> None:
        """Waits for the next round, or the end."""
        line = sys.stdin.readline().split()
        if not line or line[0] == "predict":
            raise Finished
        self.seconds, self.rows, self.limit = float(line[0]), 0, float(line[1])

    def __call__(self) -> None:
        """A step is done."""
        last = self.step % self.steps == self.steps - 1
        self.rows += self.epoch - (self.steps - 1) * self.batch if last else self.batch
        self.step += 1
        seconds = cpu_seconds() - self.started
        if seconds >= self.seconds or self.rows >= self.limit:
            answer(rows=self.rows, seconds=seconds, mib=peak_mib())
            # From here, not from the next turn's begin: what loaders fetch ahead in between is part of the work.
            self.started += seconds
            self.begin()


def answer(**values: Any) -> None:
    """Tells the parent."""
    print(json.dumps(values), file=PARENT, flush=True)


def cpu_seconds() -> float:
    """CPU time of this process and of its children, such as a loader's: those that live, and those that have ended."""
    tasks = Path("/proc/self/task").glob("*/children")
    children = [pid for task in tasks for pid in task.read_text().split()]
    ticks = 0
    for pid in children:
        with contextlib.suppress(OSError):  # it has just ended
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[11:13]))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime + ticks / os.sysconf("SC_CLK_TCK")


def peak_mib() -> float:
    """The most memory that this process ever held."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def main() -> None:
    os.dup2(2, 1)
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    dataset = table(given["table"], Path(given["cache"]), rows=given["rows"])
    options = {name: given[name] for name in ("backbone", "batch_size", "threads", "seed")}
    work = Work(dataset, **options)
    started = time.process_time()
    contestant: Contestant = CONTESTANTS[given["contestant"]](work)
    answer(built=time.process_time() - started)
    try:
        contestant.train(Rounds(work))
    except Finished:
        answer(auc=float(roc_auc_score(dataset.test.labels, contestant.predict())))


if __name__ == "__main__":
    main()
