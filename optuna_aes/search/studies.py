"""The three studies of a search, and how one of their trials is run by one worker."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.errors import InputError, StorageError, StudyMismatchError
from optuna_aes.search.progress import Listener
from optuna_aes.storage import mark_worker, reclaim_dead, release
from optuna_aes.storage.claims import WORKER_ATTR

FIT, RETRAIN = "/fit", "/retrain"

Direction = Literal["minimize", "maximize"]

NAMELESS = 20.0  # seconds until a running trial without its worker's name is given up; it takes milliseconds to write

UNDONE = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class Studies:
    """The studies of one search: ``<name>/fit``, ``<name>`` and ``<name>/retrain``."""

    fit: optuna.Study
    search: optuna.Study
    retrain: optuna.Study


def check_name(name: str) -> None:
    """Refuses what cannot name a search.

    Raises:
        InputError: If it cannot.
    """
    if not name or len(name) > 400 or not name.isprintable():
        raise InputError(f"name={name!r} cannot name a study: use 1 to 400 printable letters")
    if name.endswith((FIT, RETRAIN)):
        raise InputError(f"name={name!r} ends like a stage's study: choose another name")


def create(storage: RDBStorage, name: str) -> Studies:
    """Creates the studies that are not there yet."""
    check_name(name)

    def study(suffix: str, directions: list[Direction], metrics: list[str]) -> optuna.Study:
        made = optuna.create_study(
            storage=storage,
            study_name=name + suffix,
            directions=directions,
            load_if_exists=True,
            # Ours are proposed in groups or enqueued; Optuna's default would be built for nothing.
            sampler=RandomSampler(seed=0),
        )
        if len(made.directions) != len(directions) or (not made.metric_names and made.get_trials(deepcopy=False)):
            raise StudyMismatchError(
                f"study {name + suffix!r} exists and is not a search of optuna_aes: choose another name"
            )
        if not made.metric_names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                made.set_metric_names(metrics)
        return made

    pair: list[Direction] = ["maximize", "minimize"]
    # The main study comes first: where its name is taken by another kind of study, nothing is created.
    return Studies(
        search=study("", pair, ["inherited validation AUC", "embedding parameters"]),
        fit=study(FIT, ["maximize"], ["supernet validation AUC"]),
        retrain=study(RETRAIN, pair, ["test AUC", "embedding parameters"]),
    )


def find(storage: RDBStorage, name: str) -> optuna.Study | None:
    """The main study of a search, or None where no study has the name."""
    try:
        return load_study(storage, name)
    except KeyError:
        return None


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """One study; raises ``KeyError`` where there is none of that name."""
    return optuna.load_study(storage=storage, study_name=name, sampler=RandomSampler(seed=0))


def names(storage: RDBStorage) -> list[str]:
    """Names of the searches that the storage holds; those of other studies are left out."""
    every = set(optuna.get_all_study_names(storage))
    return sorted(n for n in every if {n + FIT, n + RETRAIN} <= every)


def load(storage: RDBStorage, name: str) -> Studies:
    """The studies of a search that exists.

    Raises:
        StorageError: If there is no search of that name.
    """
    try:
        loaded = [load_study(storage, name + suffix) for suffix in (FIT, "", RETRAIN)]
    except KeyError:
        known = names(storage)
        there = f"the storage holds {', '.join(known[:5])}" if known else "the storage holds no search"
        raise StorageError(f"there is no search named {name!r}: {there}") from None
    return Studies(*loaded)


def work_through(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float | Sequence[float]],
    *,
    listener: Listener,
    poll: float = 2.0,
) -> None:
    """Runs the waiting trials of a study one by one, until none is left here or with another worker.

    A trial whose worker died on this machine is put back in the queue at once, others after Optuna's heartbeat. On Ctrl-C
    the trial at hand goes back to the queue, with its checkpoints.

    Args:
        study: A study whose trials were enqueued.
        objective: Runs one trial, and goes on from its last checkpoint.
        listener: Hears when there is nothing to do but wait for other workers.
        poll: Seconds between looks while other workers are busy.
    """
    told = False
    nameless: dict[int, float] = {}
    while True:
        reclaim_dead(study)
        trials = study.get_trials(deepcopy=False, states=UNDONE)
        if not trials:
            return
        if any(t.state == TrialState.WAITING for t in trials):
            _run_one(study, objective)
            continue
        if not told:
            told = True
            listener.note(f"waiting for another worker at {study.study_name}, trial {trials[0].number}")
        optuna.storages.fail_stale_trials(study)
        _reclaim_nameless(study, trials, nameless)
        time.sleep(poll)


def _reclaim_nameless(study: optuna.Study, running: Sequence[FrozenTrial], seen: dict[int, float]) -> None:
    """Puts trials back in the queue that stay without a worker's name.

    A worker writes its name, and its first heartbeat, right after it claimed a trial. One that was killed in between left a
    trial that no heartbeat would ever give up. Time is taken here, by one clock: machines' clocks differ.
    """
    for trial in running:
        if WORKER_ATTR in trial.user_attrs:
            seen.pop(trial.number, None)
        elif time.monotonic() - seen.setdefault(trial.number, time.monotonic()) > NAMELESS:
            release(study, trial)


def _run_one(study: optuna.Study, objective: Callable[[optuna.Trial], float | Sequence[float]]) -> None:
    mine: optuna.Trial | None = None
    stopped = False

    def claimed(trial: optuna.Trial) -> float | Sequence[float]:
        nonlocal mine, stopped
        if not trial.user_attrs.get("aes:work"):
            # Another worker took the waiting trial between our look and Optuna's, which then made a new one.
            raise optuna.TrialPruned("nothing was waiting")
        mine = trial
        mark_worker(trial)
        try:
            return objective(trial)
        except KeyboardInterrupt:
            stopped = True
            release(study, trial)  # now: Optuna would mark it as failed, and cannot do so afterwards, which it raises
            raise

    try:
        study.optimize(claimed, n_trials=1)
    except BaseException as error:
        if not (stopped or interrupted(error)):
            raise
        if mine is not None:  # it came when the objective was done and its values were not written yet
            release(study, mine)
        raise KeyboardInterrupt from None


def interrupted(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an exception.

    One that comes while Optuna writes a trial's end surfaces as what Optuna stumbles over next: an unbound variable.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def enqueue(
    study: optuna.Study,
    params: dict[str, int],
    *,
    system_attrs: Mapping[str, object] | None = None,
    **attrs: object,
) -> None:
    """Enqueues one piece of work.

    Args:
        study: Where.
        params: The trial's parameters.
        system_attrs: What a sampler wants to find with it later.
        attrs: User attributes.
    """
    waiting = optuna.create_trial(
        state=TrialState.WAITING,
        # As Study.enqueue_trial writes it, which takes no attributes of a sampler.
        system_attrs={"fixed_params": params, **(system_attrs or {})},
        user_attrs={"aes:work": True, **attrs},
    )
    study.add_trial(waiting)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials of a study, by number."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
