"""A pruner for studies of two objectives, score and cost: it ends what the front has already left behind."""

from __future__ import annotations

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.errors import InputError

CURVE = "aes:curve"
"""User attribute of a trial: its cost, and its score by step."""


class FrontPruner(BasePruner):
    """Prunes a training when, at the same step, a trial that costs no more was better.

    Optuna's ``trial.report`` and ``trial.should_prune`` refuse studies of several objectives (issue #3450). So the
    objective reports here, and asks here:

    Example:
        >>> pruner = FrontPruner(warmup_steps=1)
        >>> def objective(trial):
        ...     sizes = space.suggest(trial)
        ...     params = space.cost(sizes).params
        ...     for epoch in range(10):
        ...         auc = train_one_epoch(sizes)
        ...         pruner.report(trial, auc, epoch, cost=params)
        ...         if pruner.should_prune(trial):
        ...             raise optuna.TrialPruned
        ...     return auc, params

    Args:
        warmup_steps: Nothing is pruned before a trial has been reported at so many steps after its first.
        startup_trials: Nothing is pruned before so many trials have finished.
        margin: How much better the other must be, in the unit of the score: that of its noise.

    Raises:
        InputError: If a value is negative.
    """

    def __init__(self, *, warmup_steps: int = 1, startup_trials: int = 5, margin: float = 0.0) -> None:
        for name, value in (("warmup_steps", warmup_steps), ("startup_trials", startup_trials), ("margin", margin)):
            if not value >= 0:
                raise InputError(f"{name}={value} is out of range: give 0 or more")
        self.warmup_steps = warmup_steps
        self.startup_trials = startup_trials
        self.margin = margin

    def report(self, trial: optuna.Trial, value: float, step: int, *, cost: float) -> None:
        """Writes down a trial's score at a step; a step that has one keeps it, as after a resume.

        Args:
            trial: The running trial.
            value: The study's first objective as it is now.
            step: Epoch, or the like.
            cost: The second objective, which does not change.
        """
        curve = trial.user_attrs.get(CURVE, {"cost": cost, "values": {}})
        if str(step) not in curve["values"]:
            values = {**curve["values"], str(step): float(value)}
            trial.set_user_attr(CURVE, {"cost": float(cost), "values": values})

    def should_prune(self, trial: optuna.Trial) -> bool:
        """Whether the running trial is left behind."""
        frozen = trial.study._storage.get_trial(trial._trial_id)
        return self.prune(trial.study, frozen)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a trial is left behind at its last step."""
        curve = trial.user_attrs.get(CURVE)
        if curve is None or len(curve["values"]) <= self.warmup_steps:
            return False
        sign = -1.0 if study.directions[0] == StudyDirection.MINIMIZE else 1.0
        step = max(map(int, curve["values"]))
        others = [
            t.user_attrs[CURVE]
            for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if CURVE in t.user_attrs and t.number != trial.number
        ]
        if len(others) < self.startup_trials:
            return False
        mine = _best(curve, step, sign)
        rivals = [_best(other, step, sign) for other in others if other["cost"] <= curve["cost"]]
        return bool(rivals) and max(rivals) > mine + self.margin


def _best(curve: dict[str, dict[str, float]], step: int, sign: float) -> float:
    """The best score up to a step; of a trial that stopped before it, its best of all."""
    reached = [sign * value for at, value in curve["values"].items() if int(at) <= step]
    return max(reached, default=-np.inf)
