"""AdaS&S's search as an Optuna sampler: an adapter over the policies of :mod:`optuna_aes.strategies.adass.policy`."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.strategies.adass.policy import Floats, Ints, Policy, PolicyOptions, Problem, make_policy, propose


class AdaSSSampler(BaseSampler):
    """Samples embedding sizes by AdaS&S's reinforcement learning (Wei et al., 2024, arXiv 2411.07504; a reconstruction).

    The state is a function of the study's finished trials: any worker that sees the same trials proposes the same sizes,
    and a restart loses nothing. No proposal is over budget. Parameters that are not the space's sizes are left to
    ``independent_sampler``. The study's first objective is the score; memory is computed, never learnt.

    Args:
        space: What is searched.
        budget: The budget that every proposal fits.
        options: How sizes are searched.
        seed: Seed of the proposals; None draws one. One worker with the same seed and trials proposes the same sizes; with
            several at once it depends on which trials have finished when each asks.
        independent_sampler: Samples every other parameter; random by default.

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
        self.space = space
        self.budget = budget
        self.options = options or PolicyOptions()
        self._independent = independent_sampler or RandomSampler(seed=seed)
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._problem = Problem(
            params=space.table_params,
            budgets=tuple(budget.level(share).params for share in self.options.levels),
        )
        self._lock = threading.Lock()
        self._folded: weakref.WeakKeyDictionary[Study, _Fold] = weakref.WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what is a function of the study, and the lock."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_folded")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a pickled sampler, with nothing folded yet."""
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._folded = weakref.WeakKeyDictionary()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sizes of the space; they are sampled together."""
        return dict(self.space.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sizes of a trial, by its number."""
        group, place = divmod(trial.number, self.options.group)
        choices = self._propose(study, group)[place]
        sizes = self.space.from_indices(choices)
        return {b.parameter: sizes[b.name] for b in self.space.blocks if b.parameter in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Everything that is not a size of the space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseeds the independent sampler; proposals of sizes depend on trial numbers, which differ between workers."""
        self._independent.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passes on to the independent sampler."""
        self._independent.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passes on to the independent sampler."""
        self._independent.after_trial(study, trial, state, values)

    def propose(self, study: Study, number: int) -> list[Sizes]:
        """The sizes of trial ``number`` and of the rest of its group, for a caller that scores groups.

        Args:
            study: The study whose finished trials the policy has learnt from.
            number: Number of the next trial.
        """
        group, place = divmod(number, self.options.group)
        return [self.space.from_indices(row) for row in self._propose(study, group)[place:]]

    def _propose(self, study: Study, group: int) -> Ints:
        with self._lock:
            fold = self._folded.get(study)
            if fold is None:
                fold = self._folded.setdefault(study, _Fold(self))
            fold.update(study, before=group * self.options.group)
            return propose(
                fold.policy,
                self._problem,
                level=self.options.level_of(group * self.options.group),
                count=self.options.group,
                seen=fold.seen,
                rng=np.random.default_rng((self._seed, group)),
            )


class _Fold:
    """What one study's finished trials amount to: the policy, and the sizes already tried."""

    def __init__(self, sampler: AdaSSSampler) -> None:
        self.sampler = sampler
        self.names = [b.parameter for b in sampler.space.blocks]
        self.index = {size: k for k, size in enumerate(sampler.space.candidates)}
        self._reset()

    def _reset(self) -> None:
        self.policy: Policy = make_policy(self.sampler._problem, self.sampler.options)
        self.seen: set[bytes] = set()
        self.numbers: list[int] = []

    def update(self, study: Study, *, before: int) -> None:
        """Folds the finished trials numbered below ``before`` that are not folded yet."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        usable = {t.number: t for t in trials if t.number < before and t.values and self._has_sizes(t)}
        numbers = sorted(usable)
        folded = len(self.numbers)
        group = self.sampler.options.group
        # A trial that finished late belongs before what is folded already, or in its last group: the fold starts anew, so
        # that it is always the same function of the finished trials.
        late = numbers[:folded] != self.numbers
        if late or (folded and folded < len(numbers) and numbers[folded] // group == self.numbers[-1] // group):
            self._reset()
            folded = 0
        new = numbers[folded:]
        for at in range(len(new)):
            if at == 0 or new[at] // group != new[at - 1] // group:
                members = [n for n in new[at : at + group] if n // group == new[at] // group]
                self._fold([usable[n] for n in members], study)
        self.numbers = numbers

    def _has_sizes(self, trial: FrozenTrial) -> bool:
        return all(trial.params.get(name) in self.index for name in self.names)

    def _fold(self, trials: list[FrozenTrial], study: Study) -> None:
        sign = -1.0 if study.directions[0] == StudyDirection.MINIMIZE else 1.0
        choices: Ints = np.array([[self.index[t.params[name]] for name in self.names] for t in trials], dtype=np.int64)
        values: Floats = np.array([sign * t.values[0] for t in trials])
        self.policy.fold(choices, values, self.sampler.options.level_of(trials[0].number))
        self.seen |= {row.tobytes() for row in choices}
