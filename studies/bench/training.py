"""Rows per CPU-second in training: us, bare torch loops (the limit), DeepCTR-Torch and FuxiCTR; same data, model and rows.

``python -m studies.bench.training [--columns 1M/deepfm/4096 …] [--rounds 5] [--auc [--seeds 3]] [--write]``

A column is a table (``frappe``, where ``FRAPPE_DIR`` says where it is, ``1M`` or ``5M`` rows of vocabulary in 26 planted
fields), a backbone (``deepfm`` or ``mlp``) and a batch size. Every contestant is a process of its own, they take turns, and
given are medians over the rounds with the range. Counted is the CPU time of the training process and its
children, such as FuxiCTR's loader, so that what else runs on the machine weighs less. ``--auc`` trains all
of them on the same number of rows instead, and gives the test AUC and how it differs between seeds of weights and order.
Where a name ends with ``bfloat16`` matrix products take that, which the peers do not offer; on a CPU without instructions for
it these are left out. The peers are the extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from optuna_aes.models.precision import has_bfloat16
from studies.bench.contestants.worker import CONTESTANTS
from studies.bench.results import ratios, spread, write_section
from studies.bench.tables import FRAPPE, PLANTED, table

COLUMNS = tuple(
    f"{name}/{backbone}/{batch}"
    for name in (FRAPPE, *PLANTED)
    for backbone in ("deepfm", "mlp")
    for batch in (1024, 4096)
)

HALF = "bfloat16"  # how the names of those end whose matrix products take it


class Process:
    """A contestant's process.

    Args:
        name: Of the contestant.
        settings: The column's.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        self.name = name
        command = [sys.executable, "-W", "ignore", "-m", "studies.bench.contestants.worker"]
        self.process = subprocess.Popen(
            [*command, json.dumps({"contestant": name, **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.rates: list[float] = []
        self.mib = 0.0
        self.built = float(self.read()["built"])

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise ChildProcessError(f"{self.name}: {self.process.stderr.read().strip()}")
        return dict(json.loads(line))

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.read()

    def turn(self, seconds: float, rows: float = 1e18) -> float:
        """Trains so many CPU-seconds or rows, at least one step; gives rows per CPU-second."""
        done = self.ask(f"{seconds} {rows}")
        self.mib = done["mib"]
        return float(done["rows"] / done["seconds"])

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", nargs="+", default=COLUMNS)
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), help="parts of their names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn, at least one step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=1_000_000, help="training rows of the planted tables")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "aes-bench")
    parser.add_argument("--auc", action="store_true", help="the test AUC after the same rows, instead of the time")
    parser.add_argument("--epochs", type=int, default=1, help="with --auc, how often the rows are trained on")
    parser.add_argument("--seeds", type=int, default=1, help="with --auc, how many trainings of each")
    parser.add_argument("--write", action="store_true", help="write to studies/bench/RESULTS.md")
    given = parser.parse_args(arguments)
    names = [n for n in CONTESTANTS if any(part == n or (part in n and part != "ours") for part in given.contestants)]
    if not has_bfloat16("cpu"):
        names = [n for n in names if not n.endswith(HALF)]
    for column in given.columns:
        name, backbone, batch = column.split("/")
        if name == FRAPPE and "FRAPPE_DIR" not in os.environ:
            print(f"{column}: left out, FRAPPE_DIR does not say where Frappe is")
            continue
        dataset = table(name, given.cache, rows=given.rows)
        settings = {"table": name, "backbone": backbone, "batch_size": int(batch), "threads": given.threads, "seed": 0}
        settings |= {"cache": str(given.cache), "rows": given.rows}
        if given.auc:
            title = f"Training: AUC after the same rows, {column}"
            lines = same_rows(names, settings, given.epochs * len(dataset.train), given.seeds)
        else:
            title = f"Training: rows per CPU-second, {column}"
            lines = rates(names, settings, given.rounds, given.seconds)
        text = "\n".join([f"Threads: {given.threads}.", "", *lines])
        print(f"\n{title}\n{text}", flush=True)
        if given.write:
            write_section(title, text)


def started(names: Sequence[str], settings: dict[str, Any], stack: ExitStack) -> list[Process]:
    """The contestants that can take part here; the others are told of."""
    processes = []
    for name in names:
        try:
            process = Process(name, settings)
        except ChildProcessError as error:
            print(f"left out: {str(error).splitlines()[0]} … {str(error).splitlines()[-1]}", flush=True)
            continue
        stack.callback(process.end)
        processes.append(process)
    return processes


def rates(names: Sequence[str], settings: dict[str, Any], rounds: int, seconds: float) -> list[str]:
    """Rows per second of every contestant, in a Markdown table."""
    with ExitStack() as stack:
        processes = started(names, settings, stack)
        for process in processes:  # compilation, first touches of tables
            process.turn(seconds)
            process.turn(seconds)
        for _ in range(rounds):
            for process in processes:
                process.rates.append(process.turn(seconds))
                print(f"{process.name}: {process.rates[-1]:,.0f} rows per CPU-second", flush=True)
    limits = {half: limit(processes, half=half) for half in (False, True)}
    lines = [
        "Ratios are to the best bare loop of the same precision, round by round: "
        + ", ".join(f"*{name}*" for name in dict.fromkeys(p.name for p in limits.values()))
        + ".",
        "",
        "| | rows per CPU-second, median (range) | of the limit, median (range) | built in s | peak MiB |",
        "|---|---|---|---|---|",
    ]
    for p in processes:
        of_limit = ratios(p.rates, limits[is_half(p)].rates)
        lines.append(f"| {p.name} | {spread(p.rates, ',.0f')} | {spread(of_limit)} | {p.built:.1f} | {p.mib:,.0f} |")
    peers = [p for p in processes if not p.name.startswith(("ours", "bare"))]
    for half in (False, True):
        ours = [p for p in processes if p.name.startswith("ours") and is_half(p) == half]
        for peer in peers if ours else ():
            best = max(ours, key=lambda p: median(p.rates))
            lines += ["", f"*{best.name}* is {spread(ratios(best.rates, peer.rates), '.1f')} times {peer.name}."]
    return lines


def is_half(process: Process) -> bool:
    """Whether a contestant's matrix products take bfloat16."""
    return process.name.endswith(HALF)


def limit(processes: Sequence[Process], *, half: bool) -> Process:
    """The best bare loop of a precision; of the other where there is none, and any contestant where there is no bare loop."""
    bare = [p for p in processes if p.name.startswith("bare")]
    return max([p for p in bare if is_half(p) == half] or bare or processes[:1], key=lambda p: median(p.rates))


def same_rows(names: Sequence[str], settings: dict[str, Any], rows: int, seeds: int) -> list[str]:
    """The test AUC of every contestant after so many rows, in a Markdown table."""
    lines = [
        f"After {rows:,} training rows" + (f"; mean and standard deviation over {seeds} seeds." if seeds > 1 else "."),
        "",
        "| | test AUC |",
        "|---|---|",
    ]
    for name in names:
        found: list[float] = []
        for seed in range(seeds):
            with ExitStack() as stack:
                for process in started([name], settings | {"seed": seed}, stack):
                    process.turn(1e9, rows)
                    found.append(process.ask("predict")["auc"])
        if found:
            deviation = f" ± {stdev(found):.4f}" if seeds > 1 else ""
            lines.append(f"| {name} | {mean(found):.4f}{deviation} |")
            print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
