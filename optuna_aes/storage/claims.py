"""What becomes of a trial of a stock worker, under ``study.optimize``, whose heartbeat has run out."""

from __future__ import annotations

import copy
import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial

from optuna_aes.storage.queue import WORKER


class RequeueTrial(RetryHeartbeatStaleTrialCallback):
    """Optuna's own callback that puts a copy of a dead worker's trial in the queue, without the dead worker's name.

    Parameters, user and system attributes and intermediate values are kept, so that the next worker goes on from the
    last checkpoint and the history has no gap. Trials of our own workers go back to the queue themselves; see
    :class:`optuna_aes.storage.WorkQueue`.

    Args:
        max_retry: How often one trial is put back, or None for no limit.
    """

    def __init__(self, *, max_retry: int | None = 3) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(max_retry=max_retry, inherit_intermediate_values=True)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Queue a copy of the failed trial."""
        trial = copy.deepcopy(trial)
        trial.user_attrs.pop(WORKER, None)
        super().__call__(study, trial)
