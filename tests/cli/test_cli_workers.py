"""Several local workers by ``--workers``, and the view of them by ``status --watch``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

Run = Callable[..., Ended]
Start = Callable[..., subprocess.Popen[str]]

COMMAND = ["search", "clicks.csv", *SMALL, "--workers", "2", "--reference"]
LONG = [*COMMAND, "--epochs", "40", "--patience", "0", "--retrain-seeds", "3"]


def stages(aes: Run) -> dict[str, tuple[int, int]]:
    found = json.loads(aes("status", "--json").out)["stages"]
    return {stage: (c["finished"], c["requested"]) for stage, c in found.items()}


def children(pid: int) -> list[int]:
    """Processes that a process started, and theirs, that run Python."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,comm"], capture_output=True, text=True, check=True).stdout
    by_parent: dict[int, list[int]] = {}
    for line in listed.splitlines()[1:]:
        own, parent, name = line.split(maxsplit=2)
        if "python" in name:
            by_parent.setdefault(int(parent), []).append(int(own))
    found = by_parent.get(pid, [])
    return found + [grandchild for child in found for grandchild in by_parent.get(child, [])]


def run_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"ended before {text!r}: {process.communicate()[1]}")


def gone(pids: list[int], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}/stat").exists() and "Z" not in _state(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_workers_share_a_search_and_one_story_is_told(folder: Path, aes: Run) -> None:
    ended = aes(*COMMAND)
    assert (ended.code, ended.err) == (0, "")
    assert stages(aes) == {"fit": (1, 1), "search": (24, 24), "retrain": (4, 4)}
    told = re.findall(r"^(fit|search|retrain) done", ended.out, flags=re.MULTILINE)
    assert told == ["fit", "search", "retrain"]
    counts = [int(n) for n in re.findall(r"^retrain: (\d+)/4", ended.out, flags=re.MULTILINE)]
    assert counts == sorted(set(counts))
    assert "waiting for another worker" not in ended.out


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_one_is_the_end_of_all(folder: Path, aes: Run, start: Start, how: signal.Signals) -> None:
    process = start(*LONG)
    run_until(process, "fit: epoch 2/40")
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert (process.returncode, err) == (130, "stopped: run the same command again to go on\n")
    assert gone(workers)
    found = json.loads(aes("status", "--json").out)["stages"]["fit"]
    assert found["running"] == found["finished"] == 0
    assert found["epochs"] >= 2


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(folder: Path, aes: Run, start: Start) -> None:
    process = start(*COMMAND, "--epochs", "12", "--patience", "0")
    run_until(process, "fit: epoch 2/12")
    for pid in children(process.pid):
        if "popen_loky" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            break
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert "a worker died: another one takes its place" in out
    assert stages(aes) == {"fit": (1, 1), "search": (24, 24), "retrain": (4, 4)}


def test_what_workers_cannot_share_is_refused(folder: Path, aes: Run) -> None:
    for option, value, said in (("--workers", "0", "workers=0"), ("--storage", "sqlite://", "in memory")):
        ended = aes(*COMMAND, option, value)
        assert ended.code == 2
        assert said in ended.err
        assert ended.err.count("\n") == 1


def test_watch_ends_with_the_search_and_names_its_workers(folder: Path, aes: Run, start: Start) -> None:
    assert aes("search", "clicks.csv", *SMALL, "--no-run", "--epochs", "6", "--patience", "0").code == 0
    looking = start("status", "--watch")
    run_until(looking, "0 workers · fit")
    worker = start("worker", "--device", "cpu", "--threads", "1")
    out, err = looking.communicate(timeout=120)
    assert (looking.returncode, err) == (0, "")
    assert " · 1 workers · " in out
    assert out.splitlines()[-1].startswith("fit 1/1 · search 24/24 · retrain 1/1")
    assert out.rstrip().endswith("done")
    worker.communicate(timeout=60)
    refused = aes("status", "--watch", "--json")
    assert refused.code == 2
