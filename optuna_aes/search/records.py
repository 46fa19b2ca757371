"""What the studies of a search record, and how it is read back; no torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.errors import StudyMismatchError
from optuna_aes.samplers.trials import read_trials
from optuna_aes.search.settings import Plan, reference_sizes
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.storage import Decision

# User attributes of trials.
SECONDS = "aes:seconds"
# Of a trial that was scored on a part of the validation rows only: on how many. It is dominated, and never picked.
ROWS = "aes:rows"
SEED, SOURCE, INHERITED = "aes:seed", "aes:search_trial", "aes:auc_inherited"
METRICS = "aes:metrics"
# User attribute of a retrain trial that is a copy: the study whose artifact the weights are.
TRAINED_IN = "aes:trained_in"
# User attribute of the search's study: its sampler has nothing more to propose.
EXHAUSTED = "aes:exhausted"
# User attribute of the retrain study: which trials of the search are retrained.
CHOSEN = "aes:chosen"


@dataclass(frozen=True)
class Scored:
    """One scored choice of sizes: the number of its trial, or of the trial it was trimmed from, inherited AUC, parameters."""

    number: int
    sizes: Sizes
    auc: float
    params: int


@dataclass(frozen=True)
class Scores:
    """The finished trials inside the budget as arrays, by number.

    Args:
        numbers: Their numbers, int64 of shape ``(n,)``.
        choices: Positions of their sizes among the candidates, int64 of shape ``(n, blocks)``.
        aucs: Inherited validation AUC, shape ``(n,)``.
        params: Embedding parameters, int64 of shape ``(n,)``.
        next_number: The number that the study's next trial will have.
        pending: How many trials were handed out and are not finished.
        failed: How many failed.
    """

    numbers: npt.NDArray[np.int64]
    choices: npt.NDArray[np.int64]
    aucs: npt.NDArray[np.float64]
    params: npt.NDArray[np.int64]
    next_number: int
    pending: int
    failed: int

    def __len__(self) -> int:
        return len(self.numbers)


def scores(study: optuna.Study, budget: MemoryBudget) -> Scores:
    """The finished trials inside the budget. Asked again, it reads only those that are new."""
    trials, space = read_trials(study, budget.space), budget.space
    if (trials.complete & ~trials.has_sizes).any():
        raise StudyMismatchError(
            f"study {study.study_name!r} has trials without sizes of this search: give another name"
        )
    params = space.params_of(trials.choices)
    numbers = np.flatnonzero(trials.complete & (params <= budget.params))
    return Scores(
        numbers,
        trials.choices[numbers],
        trials.values[numbers, 0],
        params[numbers],
        next_number=len(trials),
        pending=trials.count(TrialState.RUNNING) + trials.count(TrialState.WAITING),
        failed=trials.count(TrialState.FAIL),
    )


def scored(study: optuna.Study, budget: MemoryBudget) -> list[Scored]:
    """The finished trials inside the budget, by number."""
    inside = scores(study, budget)
    columns = zip(inside.numbers, inside.choices, inside.aucs, inside.params, strict=True)
    return [Scored(int(n), budget.space.from_indices(c), float(auc), int(params)) for n, c, auc, params in columns]


@dataclass(frozen=True)
class Job:
    """One training from scratch: sizes and seed, and for those that the search found, its trial and score."""

    sizes: Sizes
    seed: int
    search_trial: int | None = None
    auc_inherited: float | None = None

    @property
    def key(self) -> str:
        """The same for the same sizes and seed, whichever trial runs them."""
        return job_key(self.sizes, self.seed)


def jobs(picks: Sequence[Scored], plan: Plan, space: EmbeddingSpace, *, seed: int) -> list[Job]:
    """What the retrain stage consists of, once its sizes are picked."""
    uniform = [space.uniform(d) for d in reference_sizes(space.full)] if plan.reference else []
    references = [sizes for sizes in uniform if all(sizes != pick.sizes for pick in picks)]
    found: list[Job] = []
    # Seed by seed, so that a run that is stopped early has every point once before any twice.
    for number in range(seed, seed + plan.retrain_seeds):
        found += [Job(pick.sizes, number, pick.number, pick.auc) for pick in picks]
        found += [Job(sizes, number) for sizes in references]
    return found


@dataclass(frozen=True)
class Picks:
    """Which scored sizes are to be trained from scratch.

    Args:
        found: They, each once.
        levels: By budget level in parameters, the position in ``found`` of what was picked for it; a level that nothing
            was picked for is left out.
    """

    found: tuple[Scored, ...]
    levels: dict[int, int]

    def at(self, params: float) -> Scored | None:
        """What was picked for the largest level of at most so many parameters."""
        inside = [level for level in self.levels if level <= params]
        return self.found[self.levels[max(inside)]] if inside else None


NO_PICKS = Picks((), {})


def recorded_picks(study: optuna.Study, trials: Sequence[Scored], plan: Plan) -> Picks | None:
    """The picks that the retrain study names, if they were made of these scored trials and for this plan; else None."""
    known = study.user_attrs.get(CHOSEN)
    if known is None or known["basis"] != _basis(trials, plan):
        return None
    # Studies of before do not say which level a pick was made for.
    levels = {int(level): int(at) for level, at in known.get("levels", ())}
    return Picks(tuple(Scored(**pick) for pick in known["picks"]), levels)


def decision_of(study: optuna.Study, trials: Sequence[Scored], plan: Plan, picks: Picks) -> Decision:
    """What makes :func:`recorded_picks` give these picks, unless others were decided on in the meantime."""
    found, levels = [asdict(pick) for pick in picks.found], [list(pair) for pair in picks.levels.items()]
    new = {"basis": _basis(trials, plan), "picks": found, "levels": levels}
    return Decision(CHOSEN, study.user_attrs.get(CHOSEN), new)


def _basis(trials: Sequence[Scored], plan: Plan) -> dict[str, Any]:
    fixed = {} if plan.picks_at is None else {"picks_at": list(plan.picks_at)}
    return {"scored": len(trials), "retrain": plan.picks, **fixed}


def job_key(sizes: Mapping[str, int], seed: int) -> str:
    """Names a training in the artifact store and among trials."""
    digest = hashlib.blake2b(json.dumps(dict(sizes), sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"{digest}/{seed}"


def key_of(trial: FrozenTrial, space: EmbeddingSpace) -> str:
    """The key of a retrain trial's work."""
    return job_key(space.from_params(_params(trial)), int(trial.user_attrs[SEED]))


def has_sizes(trial: FrozenTrial) -> bool:
    """Whether a trial of the retrain stage is one of ours, with a seed and sizes."""
    return SEED in trial.user_attrs and bool(_params(trial))


def _params(trial: FrozenTrial) -> dict[str, Any]:
    # A trial that was enqueued and not started yet has its parameters among the system attributes.
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}
