"""A worker at the trials of a stage: it takes one, runs it and finishes it, until no work is left here or anywhere.

What goes wrong, exceptions and want of memory, is tried again by whoever comes next, a few times; then the trial is recorded
as failed, with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.errors import AesError, StorageError
from optuna_aes.search.progress import Listener
from optuna_aes.storage import Hold, LostTrialError, Outcome, WorkQueue
from optuna_aes.storage.queue import REASON, WORK

WAITING = "waiting for another worker"  # how a note begins that tells of nothing else

UNDONE = (TrialState.WAITING, TrialState.RUNNING)

FAILURES = "aes:failures"  # user attribute of a trial: what went wrong so far, a line each
SHRINK = "aes:shrink"  # user attribute: into how many parts a batch is to be divided, as memory did not suffice

RETRIES = 3
MOST_FAILED = 10  # trials of a search that fail for good until it is the search that is at fault
SHRINK_BY = 4  # parts of a batch, each time that memory does not suffice
PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds before work is taken again after something went wrong; fourfold each time


class StageError(AesError):
    """A stage cannot be finished: its work failed for good."""


@dataclass(frozen=True)
class Held:
    """One trial at hand.

    Args:
        trial: The trial.
        hold: This worker's hold on it.
        shrink: Into how many parts a batch is to be divided.
    """

    trial: optuna.Trial
    hold: Hold
    shrink: int = 1

    def check(self) -> None:
        """Makes sure that the trial is still this worker's; to be called before anything is written for it.

        Raises:
            LostTrialError: If it is not.
        """
        self.hold.check()


@dataclass(frozen=True)
class Crew:
    """How a worker waits for the others, and tells of it.

    Args:
        listener: Hears when there is nothing to do but wait, and of what went wrong.
        poll: Seconds between looks while others are busy.
    """

    listener: Listener
    poll: float = 2.0
    told: set[str] = field(default_factory=set)

    def wait(self, study: optuna.Study, busy: Sequence[FrozenTrial]) -> None:
        """Waits a little; says so the first time."""
        if study.study_name not in self.told:
            self.told.add(study.study_name)
            trials = f"trial {busy[0].number}" if len(busy) == 1 else f"{len(busy)} trials"
            self.listener.note(f"{WAITING} at {study.study_name}, {trials}")
        time.sleep(self.poll)


def work_through(
    study: optuna.Study,
    objective: Callable[[Held], float | Sequence[float]],
    *,
    crew: Crew,
    more: Callable[[WorkQueue], bool] = lambda _: False,
    leave: Callable[[], bool] = lambda: False,
) -> BaseException | None:
    """Runs the waiting trials of a study one by one, until none is left here or with another worker.

    On Ctrl-C the trial at hand goes back to the queue, with its checkpoints.

    Args:
        study: A study whose trials were laid out.
        objective: Runs one trial, and goes on from its last checkpoint.
        crew: How to wait for other workers.
        more: Lays out more work where nothing waits; whether there may be some now.
        leave: Whether there is something better to do than to wait for other workers.

    Returns:
        What the last trial failed of, if this worker failed one for good.
    """
    queue, last = WorkQueue(study), None
    while True:
        queue.reclaim()
        if (hold := queue.claim()) is not None:
            last = _run(study, hold, objective, crew) or last
            continue
        if more(queue):
            continue
        busy = study.get_trials(deepcopy=False, states=UNDONE)
        if not busy or leave():
            return last
        crew.wait(study, busy)


def _run(
    study: optuna.Study, hold: Hold, objective: Callable[[Held], float | Sequence[float]], crew: Crew
) -> BaseException | None:
    """Runs one trial; what it failed of, if for good."""
    ((trial_id, number),) = hold.trials.items()
    attrs: dict[str, Any] = {}
    try:
        trial = optuna.Trial(study, trial_id)
        attrs = trial.user_attrs
        try:
            with hold.beating():
                values = objective(Held(trial, hold, int(attrs.get(SHRINK, 1))))
            outcome = Outcome(values if isinstance(values, Sequence) else [values])
        except optuna.TrialPruned:
            outcome = Outcome(None, TrialState.PRUNED)
        if not hold.finish({number: outcome}):
            crew.listener.note(f"trial {number} of {study.study_name} was taken over by another worker: dropped here")
    except LostTrialError as lost:
        crew.listener.note(f"{lost}: dropped here")
    except Exception as error:
        if interrupted(error):
            hold.release()
            raise KeyboardInterrupt from None
        return failed(hold, number, error, attrs=attrs, crew=crew)
    except BaseException:  # Ctrl-C, which may also have come while the trial's end was written
        hold.release()
        raise
    return None


def failed(
    hold: Hold, number: int, error: Exception, *, attrs: Mapping[str, Any], crew: Crew, pause: bool = True
) -> Exception | None:
    """Gives a trial that went wrong back to the queue, or records it as failed.

    Args:
        hold: This worker's hold on it.
        number: Its number.
        error: What went wrong.
        attrs: The trial's user attributes.
        crew: Whom to tell.
        pause: Whether to wait a little then: what went wrong, such as a full disk, may take time to pass.

    Returns:
        The error, if the trial failed for good.
    """
    try:
        hold.check([number])  # of a group, others have ended
    except LostTrialError as lost:  # what went wrong is that it is another's
        crew.listener.note(f"{lost}: dropped here")
        return None
    reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
    failures = [*attrs.get(FAILURES, []), reason]
    what = f"trial {number} of {hold.queue.study.study_name} failed ({reason})"
    # What the user gave is wrong will be wrong next time too.
    for_good = len(failures) > RETRIES or (isinstance(error, AesError) and not isinstance(error, StorageError))
    if for_good:
        crew.listener.note(f"{what}: given up")
        hold.finish({number: Outcome(None, TrialState.FAIL, {FAILURES: failures, REASON: reason})})
        return error
    changes: dict[str, Any] = {FAILURES: failures}
    if out_of_memory(error):
        changes[SHRINK] = SHRINK_BY * int(attrs.get(SHRINK, 1))
    crew.listener.note(f"{what}: it is tried again")
    hold.release({number: changes})
    if pause and not out_of_memory(error):
        time.sleep(min(LONGEST_PAUSE, PAUSE * 4 ** (len(failures) - 1)))
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine or its GPU had no memory left."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )


def interrupted(error: BaseException | None) -> bool:
    """Whether a Ctrl-C is behind an exception: one that comes within a library may surface as what that stumbles over next."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def waiting(
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, Any] | None = None,
    *,
    constraints: Mapping[str, float] | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """A piece of work to lay out.

    Args:
        params: The trial's parameters.
        distributions: Of the parameters.
        constraints: Constraints that are known already.
        attrs: User attributes.
    """
    return optuna.create_trial(
        state=TrialState.WAITING,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        constraints=None if constraints is None else dict(constraints),
        user_attrs={WORK: True, **(attrs or {})},
    )


def reason_of(study: optuna.Study) -> str:
    """Why a study's last failed trial failed."""
    reasons = [t.user_attrs.get(REASON) for t in study.get_trials(deepcopy=False, states=(TrialState.FAIL,))]
    return str(next((reason for reason in reversed(reasons) if reason), "no reason was recorded"))
