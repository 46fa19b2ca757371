"""Trials of workers that died on this machine: found at once, without waiting for Optuna's heartbeat to run out."""

from __future__ import annotations

import copy
import os
import socket
import sys
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.storage._rdb import ensure_row_locks, rdb_of

WORKER_ATTR = "worker"

# A process id means something only on the machine, since the boot and within the container it was given in.
_SAME_MACHINE = ("host", "boot", "pid_namespace")


class RequeueTrial(RetryHeartbeatStaleTrialCallback):
    """Optuna's own callback that puts a dead worker's trial back in the queue, without the dead worker's name.

    Parameters, user and system attributes and intermediate values are kept, so that the next worker goes on from the
    last checkpoint and the history has no gap.

    Args:
        max_retry: How often one trial is put back, or None for no limit.
    """

    def __init__(self, *, max_retry: int | None = 3) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(max_retry=max_retry, inherit_intermediate_values=True)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Queue a copy of the failed trial."""
        super().__call__(study, _without_worker(trial))


def worker_identity() -> dict[str, Any]:
    """Describe this process so that another one on the same machine can tell whether it still lives.

    Returns:
        ``host``, ``boot`` and ``pid_namespace``, which together name the machine; ``pid``; and ``started``, the time at
        which the process started, in the system's own units, which tells it from a later process of the same number.
    """
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "boot": _read("/proc/sys/kernel/random/boot_id") or f"node-{uuid.getnode():x}",
        "pid_namespace": _link("/proc/self/ns/pid"),
        "pid": pid,
        "started": _stat(pid)[1],
    }


def mark_worker(trial: optuna.Trial) -> None:
    """Write this process into the trial, so that :func:`reclaim_dead` finds it if the process dies.

    Args:
        trial: A trial that this process has claimed. Call it first thing in the objective.
    """
    # The number tells a mark from one that was copied along with a retried trial's attributes.
    trial.set_user_attr(WORKER_ATTR, {**worker_identity(), "trial": trial.number})


def reclaim_dead(study: optuna.Study) -> list[int]:
    """Fail the trials whose worker died on this machine, and queue each again.

    Safe to call from many processes at once: each dead trial is queued by exactly one of them. Trials of other
    machines, and trials never marked, are left to Optuna's heartbeat.

    Args:
        study: The study to look through.

    Returns:
        The numbers of the trials that this call failed. A trial that used up its retries is failed but not queued.
    """
    here = worker_identity()
    return [trial.number for trial in _running(study) if _died(trial, here) and _requeue(study, trial)]


def release(study: optuna.Study, trial: optuna.Trial | FrozenTrial) -> bool:
    """Give a trial of this process back to the queue, as after Ctrl-C. It does not count as a retry.

    Args:
        study: The study of the trial.
        trial: A trial that this process has claimed and will not finish.

    Returns:
        Whether it was given back; False if it was finished, or taken over by another worker, before.
    """
    return _requeue(study, study._storage.get_trial(trial._trial_id), requeue=_enqueue_again)


def _enqueue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
            system_attrs=trial.system_attrs,
            intermediate_values=trial.intermediate_values,
        )
    )


def _requeue(
    study: optuna.Study,
    trial: FrozenTrial,
    *,
    requeue: Callable[[optuna.Study, FrozenTrial], None] | None = None,
) -> bool:
    storage, rdb = study._storage, rdb_of(study._storage)
    if rdb is not None:
        ensure_row_locks(rdb.engine)  # makes the next call an atomic compare-and-set on SQLite too
    try:
        if not storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            return False
    except (UpdateFinishedTrialError, KeyError):  # finished by another process, or deleted with its study
        return False
    if requeue is None:
        requeue = (rdb.get_heartbeat_stale_trial_callback() if rdb is not None else None) or RequeueTrial()
    # Read again: attributes may have been written between our first look and the failing.
    requeue(study, _without_worker(storage.get_trial(trial._trial_id)))
    return True


def _running(study: optuna.Study) -> list[FrozenTrial]:
    """The running trials, by a query of their own: Optuna's cache would read every trial of the study first."""
    rdb = rdb_of(study._storage)
    if rdb is None:
        return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return rdb.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,))


def _without_worker(trial: FrozenTrial) -> FrozenTrial:
    trial = copy.deepcopy(trial)
    trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if key != WORKER_ATTR}
    return trial


def _died(trial: FrozenTrial, here: Mapping[str, Any]) -> bool:
    worker = trial.user_attrs.get(WORKER_ATTR)
    if not isinstance(worker, dict) or worker.get("trial") != trial.number:
        return False
    if any(worker.get(key) != here[key] for key in _SAME_MACHINE):
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
