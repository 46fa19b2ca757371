"""What our samplers have in common: sizes are sampled together, and everything else is left to another sampler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.samplers._numbered import NumberedSampler
from optuna_aes.space import EmbeddingSpace, Sizes


class SizeSampler(BaseSampler):
    """Base of the samplers of embedding sizes; a subclass says which sizes a trial gets.

    Args:
        space: What is searched.
        seed: Of proposals and of the independent sampler; None draws one.
        independent_sampler: Samples every parameter that is not a size of the space; by default random values that depend
            on the seed, the trial's number and the parameter's name only.
    """

    def __init__(self, space: EmbeddingSpace, *, seed: int | None, independent_sampler: BaseSampler | None) -> None:
        self.space = space
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._independent = independent_sampler or NumberedSampler(self._seed)

    @abstractmethod
    def _sizes(self, study: Study, trial: FrozenTrial) -> Sizes:
        """The sizes of a trial."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The sizes of the space; they are sampled together."""
        return dict(self.space.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sizes of a trial; what else a wrapping sampler asks for is sampled independently."""
        sizes = self.space.to_params(self._sizes(study, trial))
        return {
            name: sizes[name] if name in sizes else self.sample_independent(study, trial, name, distribution)
            for name, distribution in search_space.items()
        }

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Everything that is not a size of the space."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Reseeds the independent sampler; sizes are a function of the study's trials, which workers share."""
        self._independent.reseed_rng()

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passes on to the independent sampler."""
        self._independent.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Passes on to the independent sampler."""
        self._independent.after_trial(study, trial, state, values)
