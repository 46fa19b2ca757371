"""A pruner that ends trials whose sizes are over budget."""

from __future__ import annotations

from optuna.pruners import BasePruner, NopPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_aes.budget import MemoryBudget


class BudgetPruner(BasePruner):
    """Prunes trials over the memory budget, and leaves the others to another pruner.

    :meth:`MemoryBudget.check` already prunes before any training, in studies of one objective and of several. This pruner
    guards objectives that report before they check: ``trial.should_prune()`` is true as soon as all sizes are suggested and
    do not fit. In a multi-objective study Optuna never asks a pruner, so there ``check`` is the only guard.

    Args:
        budget: The budget.
        inner: Decides on trials that fit; none of them is pruned by default.
    """

    def __init__(self, budget: MemoryBudget, *, inner: BasePruner | None = None) -> None:
        self.budget = budget
        self.inner = inner or NopPruner()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is over budget, or the inner pruner ends it."""
        space = self.budget.space
        if all(b.parameter in trial.params for b in space.blocks) and not self.budget.fits(
            space.from_params(trial.params)
        ):
            return True
        return self.inner.prune(study, trial)
