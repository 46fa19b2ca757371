"""AdaS&S's search as an Optuna sampler: an adapter over the policies of :mod:`optuna_aes.strategies.adass.policy`."""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from optuna_aes.budget import MemoryBudget
from optuna_aes.samplers._sizes import SizeSampler
from optuna_aes.samplers.trials import read_trials
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.strategies.adass.policy import Ints, Policy, PolicyOptions, Problem, make_policy, propose


class AdaSSSampler(SizeSampler):
    """Samples embedding sizes by AdaS&S's reinforcement learning (Wei et al., 2024, arXiv 2411.07504; a reconstruction).

    The policy is a function of the study's finished trials: any worker that sees the same trials proposes the same sizes,
    and a restart loses nothing. No proposal is over budget, and none repeats sizes that a trial of an earlier group has had
    while there are others. Parameters that are not the space's sizes are left to
    ``independent_sampler``. The study's first objective is the score; memory is computed, never learnt.

    Args:
        space: What is searched.
        budget: The budget that every proposal fits.
        options: How sizes are searched.
        seed: Seed of the proposals; None draws one. One worker with the same seed and trials proposes the same sizes; with
            several at once it depends on which trials have finished when each asks.
        independent_sampler: Samples every other parameter; by default random values that depend on the seed, the trial's
            number and the parameter's name only, so that a restart does not repeat them.

    Example:
        >>> space = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16))
        >>> sampler = AdaSSSampler(space, MemoryBudget(space, fraction=0.25), seed=0)
        >>> study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        budget: MemoryBudget,
        *,
        options: PolicyOptions | None = None,
        seed: int | None = None,
        independent_sampler: BaseSampler | None = None,
    ) -> None:
        super().__init__(space, seed=seed, independent_sampler=independent_sampler)
        self.budget = budget
        self.options = options or PolicyOptions()
        self._problem = Problem(
            params=space.table_params,
            budgets=tuple(budget.level(share).params for share in self.options.levels),
        )
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        # By storage and not by study: a pruner such as Hyperband wraps the study anew for every trial.
        self._folds: weakref.WeakKeyDictionary[BaseStorage, dict[int, _Fold]] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is a function of the study, and the lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_folds")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a pickled sampler, with nothing folded yet."""
        self.__dict__.update(state)
        self._forget()

    def _sizes(self, study: Study, trial: FrozenTrial) -> Sizes:
        """By the trial's number: its place in its group."""
        group, place = divmod(trial.number, self.options.group)
        return self.space.from_indices(self._propose(study, group)[place])

    def propose(self, study: Study, number: int) -> list[Sizes]:
        """The sizes of trial ``number`` and of the rest of its group, for a caller that scores groups.

        Args:
            study: The study whose finished trials the policy has learnt from.
            number: Number of the next trial.
        """
        group, place = divmod(number, self.options.group)
        return [self.space.from_indices(row) for row in self._propose(study, group)[place:]]

    def _propose(self, study: Study, group: int) -> Ints:
        first = group * self.options.group
        with self._lock:
            folds = self._folds.setdefault(study._storage, {})
            if study._study_id not in folds:
                folds[study._study_id] = _Fold(self)
            fold = folds[study._study_id]
            fold.update(study, before=first)
            if group not in fold.proposed:
                fold.proposed[group] = propose(
                    fold.policy,
                    self._problem,
                    level=self.options.level_of(first),
                    count=self.options.group,
                    seen=fold.seen,
                    rng=np.random.default_rng((self._seed, group)),
                )
            return fold.proposed[group]


class _Fold:
    """What one study's trials amount to: the policy, the sizes already tried, and what was proposed on them."""

    def __init__(self, sampler: AdaSSSampler) -> None:
        self.sampler = sampler
        self.read: tuple[int, int] | None = None
        self.tried: list[int] = []
        self.seen: set[bytes] = set()
        self.proposed: dict[int, Ints] = {}
        self._reset()

    def _reset(self) -> None:
        self.policy: Policy = make_policy(self.sampler._problem, self.sampler.options)
        self.folded: list[int] = []

    def update(self, study: Study, *, before: int) -> None:
        """Makes this the fold of the finished trials numbered below ``before``, group by group."""
        trials = read_trials(study, self.sampler.space)
        if self.read == (trials.version, before):
            return
        self.read = trials.version, before
        has_sizes, scores = trials.has_sizes[:before], trials.values[:before, 0]
        tried = np.flatnonzero(has_sizes).tolist()
        scored = np.flatnonzero(has_sizes & trials.complete[:before] & np.isfinite(scores)).tolist()
        if tried == self.tried and scored == self.folded:
            return
        # Whatever came of it, a trial's sizes are not proposed again: those that were pruned or crashed would be, for ever.
        known = len(self.tried)
        if tried[:known] != self.tried:
            known, self.seen = 0, set()
        self.seen |= {row.tobytes() for row in trials.choices[tried[known:]]}
        self.tried = tried
        self.proposed = {}
        # A trial that finished late belongs before what is folded already, or in its last group: the fold starts anew, so
        # that it is always the same function of the finished trials. When trials finish in turn, only new groups fold.
        group, done = self.sampler.options.group, len(self.folded)
        if scored[:done] != self.folded or (
            0 < done < len(scored) and scored[done] // group == scored[done - 1] // group
        ):
            self._reset()
            done = 0
        sign = -1.0 if study.directions[0] == StudyDirection.MINIMIZE else 1.0
        for _, members in itertools.groupby(scored[done:], key=lambda number: number // group):
            numbers = list(members)
            level = self.sampler.options.level_of(numbers[0])
            self.policy.fold(trials.choices[numbers], sign * scores[numbers], level)
        self.folded = scored
