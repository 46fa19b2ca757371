"""Who a worker is, and whether one on this machine still lives: found at once, without waiting for heartbeats to run out."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

# A process id means something only on the machine, since the boot and within the container it was given in.
_SAME_MACHINE = ("host", "boot", "pid_namespace")


def worker_identity() -> dict[str, Any]:
    """Describe this process so that another one on the same machine can tell whether it still lives.

    Returns:
        ``host``, ``boot`` and ``pid_namespace``, which together name the machine; ``pid``; and ``started``, the time at
        which the process started, in the system's own units, which tells it from a later process of the same number.
    """
    return dict(_identity(os.getpid()))


@lru_cache(maxsize=4)  # by process id: a forked child is another worker
def _identity(pid: int) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id") or f"node-{uuid.getnode():x}",
        "pid_namespace": _link("/proc/self/ns/pid"),
        "pid": pid,
        "started": _stat(pid)[1],
    }


def same_machine(worker: Mapping[str, Any]) -> bool:
    """Whether a worker, described by :func:`worker_identity`, is or was on this machine."""
    here = worker_identity()
    return all(worker.get(key) == here[key] for key in _SAME_MACHINE)


def died_here(worker: Mapping[str, Any]) -> bool:
    """Whether a worker was on this machine and is no more; of other machines nothing is known."""
    if not same_machine(worker):
        return False
    alive, started = _stat(int(worker["pid"]))
    return not alive or (started is not None and started != worker["started"])


def _stat(pid: int) -> tuple[bool, str | None]:
    """Whether a process lives, and when it started, if the system says so."""
    if sys.platform == "win32":  # os.kill would end the process there
        return True, None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False, None
    except PermissionError:  # another user's
        return True, None
    # The name, in parentheses, may hold spaces and parentheses; the state is the field after it, the start the 20th.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) < 20:
        return True, None
    return fields[0] not in "ZX", fields[19]  # killed, but not yet waited for by its parent


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
