"""The search of methods that give a path of sizes from one fit: which point of it to look at next."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.errors import InputError
from optuna_aes.samplers._sizes import SizeSampler
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.strategies.paths import widest_gaps


class FrontPathSampler(SizeSampler):
    """Proposes, of a path of sizes, the point that splits the front's widest gap in hypervolume.

    For DNIS, SHAM and other pruning: every threshold on one fit is a choice of sizes. The sampler is a function of the
    study's trials. When every point of the path inside the budget has had its trial, it stops the study as Optuna's
    ``GridSampler`` does; where it is asked all the same, it repeats the largest point.

    Args:
        space: What is searched.
        budget: Points over it are left out.
        path: The points, in any order; of points that cost the same the first is kept.
        seed: Seed of parameters that are not the space's sizes.
        independent_sampler: Samples those; see :class:`optuna_aes.AdaSSSampler`.

    Raises:
        InputError: If no point is inside the budget.

    Example:
        >>> path = [{"user": d, "item": d} for d in range(17)]
        >>> sampler = FrontPathSampler(space, MemoryBudget(space, fraction=0.5), path)
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        budget: MemoryBudget,
        path: Sequence[Mapping[str, int]],
        *,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        super().__init__(space, seed=seed, independent_sampler=independent_sampler)
        by_cost: dict[int, Sizes] = {}
        for sizes in path:
            by_cost.setdefault(space.cost(sizes).params, space.check(sizes))
        inside = [(cost, by_cost[cost]) for cost in sorted(by_cost) if cost <= budget.params]
        if not inside:
            raise InputError(
                f"path has no point inside the budget of {budget.params:,} parameters: its smallest has "
                f"{min(by_cost, default=0):,}"
            )
        self.points = [sizes for _, sizes in inside]
        self._costs = np.array([cost for cost, _ in inside], dtype=np.int64)
        self._position = {tuple(sizes.values()): at for at, sizes in enumerate(self.points)}

    def _sizes(self, study: Study, trial: FrozenTrial) -> Sizes:
        return (self._propose(study, 1, besides=trial.number) or [self.points[-1]])[0]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Stops the study at the path's end."""
        super().after_trial(study, trial, state, values)
        if not self._propose(study, 1):
            with contextlib.suppress(RuntimeError):  # asked and told by hand: there is nothing to stop
                study.stop()

    def propose(self, study: Study, count: int) -> list[Sizes]:
        """The next points, for a caller that scores groups.

        Args:
            study: The study whose trials say which points are known.
            count: How many; fewer are left at the end of the path.
        """
        return self._propose(study, count)

    def _propose(self, study: Study, count: int, besides: int = -1) -> list[Sizes]:
        sign = -1.0 if study.directions[0] == StudyDirection.MINIMIZE else 1.0
        known: dict[int, float] = {}
        pending: list[int] = []
        for trial in study._storage.get_all_trials(study._study_id, deepcopy=False):
            at = self._position.get(tuple(trial.params.get(b.parameter, -1) for b in self.space.blocks))
            if at is None or trial.number == besides:
                continue
            if trial.state == TrialState.COMPLETE:
                known.setdefault(at, sign * trial.values[0])
            else:  # it is running, or came to nothing: its value is somewhere among the others
                pending.append(at)
        middle = float(np.mean(list(known.values()))) if known else 0.0
        known = {**dict.fromkeys(pending, middle), **known}
        return [self.points[at] for at in widest_gaps(self._costs, known, count)]
