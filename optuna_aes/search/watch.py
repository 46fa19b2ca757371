"""What a search is doing now: its stages, its workers, how fast it goes and when it will be done. No torch here."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna_aes.search.read import Record, status
from optuna_aes.storage import WorkQueue
from optuna_aes.storage.presence import workers_of
from optuna_aes.storage.queue import Running

WINDOW = 120.0  # seconds that a speed is taken over


@dataclass(frozen=True)
class Worker:
    """One worker: where it is, and what it does.

    Args:
        host: Its machine.
        pid: Its process.
        device: Where it computes; empty if it is not known.
        doing: What it holds, or that it waits.
        silent: Seconds since its last sign of life.
        alive: Whether it is taken to be alive.
    """

    host: str
    pid: int
    device: str
    doing: str
    silent: float
    alive: bool


@dataclass(frozen=True)
class View:
    """One look at a search.

    Args:
        status: See :func:`optuna_aes.search.read.status`.
        workers: The workers.
        stage: The stage at hand; None when all is done.
        per_minute: Epochs of the fit, trials or trainings finished per minute; None until two looks have told.
        eta: Seconds until the stage is done, at that speed.
        stale: Running trials whose worker is dead, or has been silent for longer than it may.
    """

    status: dict[str, Any]
    workers: tuple[Worker, ...]
    stage: str | None
    per_minute: float | None
    eta: float | None
    stale: int


class Watch:
    """Looks at a search again and again; speeds are by this process's clock, as machines' clocks differ.

    Args:
        record: The search.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.epochs = int(record.settings["fit"]["epochs"])
        self.queues = {
            "fit": WorkQueue(record.studies.fit),
            "search": WorkQueue(record.studies.search),
            "retrain": WorkQueue(record.studies.retrain),
        }
        self.seen: deque[tuple[float, str, int]] = deque()

    def look(self) -> View:
        """What there is to see now."""
        found = status(self.record)
        running = {stage: queue.backend.running() for stage, queue in self.queues.items()}
        workers = self._workers(running)
        stage = _stage(found["stages"])
        speed = self._speed(stage, found["stages"])
        left = None if stage is None else self._left(stage, found["stages"][stage])
        return View(
            status=found,
            workers=workers,
            stage=stage,
            per_minute=speed,
            eta=None if not speed or left is None else 60 * left / speed,
            stale=sum(
                self._is_stale(self.queues[stage], trial) for stage, all_of in running.items() for trial in all_of
            ),
        )

    def _workers(self, running: Mapping[str, list[Running]]) -> tuple[Worker, ...]:
        holding: dict[tuple[str, int], list[str]] = {}
        for stage, trials in running.items():
            for who, numbers in _by_worker(trials).items():
                what = f"trial {numbers[0]}" if len(numbers) == 1 else f"trials {numbers[0]} to {numbers[-1]}"
                holding.setdefault(who, []).append(f"{stage}, {what}")
        found = []
        for one in workers_of(self.record.storage, self.record.name):
            who = (str(one.identity["host"]), int(one.identity["pid"]))
            doing = "; ".join(holding.pop(who, [])) or ("waiting" if one.alive else "")
            found.append(
                Worker(*who, one.device, doing if one.alive else f"gone; {doing}".rstrip("; "), one.silent, one.alive)
            )
        # Those that hold something and are not on the list.
        found += [Worker(*who, "", "; ".join(what), 0.0, True) for who, what in holding.items()]
        return tuple(found)

    def _speed(self, stage: str | None, stages: Mapping[str, Mapping[str, int]]) -> float | None:
        now = time.monotonic()
        if stage is None:
            return None
        self.seen.append((now, stage, self._finished(stage, stages[stage])))
        while self.seen and (self.seen[0][1] != stage or now - self.seen[0][0] > WINDOW):
            self.seen.popleft()
        since, _, before = self.seen[0]
        if now == since:
            return None
        return 60 * (self.seen[-1][2] - before) / (now - since)

    def _finished(self, stage: str, counts: Mapping[str, int]) -> int:
        return counts["epochs"] if stage == "fit" else counts["finished"]

    def _left(self, stage: str, counts: Mapping[str, int]) -> int:
        if stage == "fit":
            return self.epochs - counts["epochs"]
        return counts["requested"] - counts["finished"] - counts["failed"]

    def _is_stale(self, queue: WorkQueue, trial: Running) -> bool:
        return queue.is_dead(trial)


def _stage(stages: Mapping[str, Mapping[str, int]]) -> str | None:
    for stage, counts in stages.items():
        # What failed is done with, but in the search, where others take its place.
        if counts["finished"] + (counts["failed"] if stage == "retrain" else 0) < counts["requested"]:
            return stage
    return None


def _by_worker(trials: list[Running]) -> dict[tuple[str, int], list[int]]:
    found: dict[tuple[str, int], list[int]] = {}
    for trial in trials:
        worker = json.loads(trial.mark) if trial.mark else None
        if isinstance(worker, dict) and "pid" in worker:
            found.setdefault((str(worker.get("host", "")), int(worker["pid"])), []).append(trial.number)
    return found
