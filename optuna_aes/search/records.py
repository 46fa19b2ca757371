"""What the studies of a search record, and how it is read back; no torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optuna_aes.budget import MemoryBudget
from optuna_aes.search.settings import Plan, reference_sizes
from optuna_aes.search.studies import complete
from optuna_aes.space import EmbeddingSpace, Sizes

# User attributes of trials.
SECONDS = "aes:seconds"
SEED, SOURCE, INHERITED = "aes:seed", "aes:search_trial", "aes:auc_inherited"
METRICS = "aes:metrics"
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


def scored(study: optuna.Study, budget: MemoryBudget) -> list[Scored]:
    """The finished trials inside the budget, by number."""
    found = []
    for trial in complete(study):
        sizes = budget.space.from_params(trial.params)
        params = budget.space.cost(sizes).params
        if params <= budget.params:
            found.append(Scored(trial.number, sizes, trial.values[0], params))
    return found


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


def recorded_picks(study: optuna.Study, trials: Sequence[Scored], count: int) -> list[Scored] | None:
    """The picks that the retrain study names, if they were made of these scored trials; else None."""
    known = study.user_attrs.get(CHOSEN)
    if known is None or known["basis"] != {"scored": len(trials), "retrain": count}:
        return None
    return [Scored(**pick) for pick in known["picks"]]


def record_picks(study: optuna.Study, trials: Sequence[Scored], count: int, picks: Sequence[Scored]) -> None:
    """The inverse of :func:`recorded_picks`."""
    basis = {"scored": len(trials), "retrain": count}
    study.set_user_attr(CHOSEN, {"basis": basis, "picks": [asdict(pick) for pick in picks]})


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
