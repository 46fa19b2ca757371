"""What the studies of a search record, and how it is read back; no torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from optuna_aes.budget import MemoryBudget
from optuna_aes.search.studies import complete
from optuna_aes.space import EmbeddingSpace, Sizes

# User attributes of trials.
SECONDS = "aes:seconds"
SEED, UNIFORM, SOURCE, INHERITED = "aes:seed", "aes:uniform", "aes:search_trial", "aes:auc_inherited"
METRICS = "aes:metrics"


@dataclass(frozen=True)
class Scored:
    """One scored choice of sizes: its trial's number, inherited validation AUC, and parameters."""

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


def choose(trials: list[Scored], budgets: list[int], count: int) -> list[Scored]:
    """The sizes that are worth training from scratch.

    The budget levels take turns, each naming the best-scored sizes inside it that no level has named yet; so every level
    gets its best first, and a second opinion where there is room.

    Args:
        trials: Scored sizes.
        budgets: Budget levels in parameters, the full budget first.
        count: How many to choose.
    """
    order = sorted(trials, key=lambda t: (-t.auc, t.params, t.number))
    chosen: dict[tuple[tuple[str, int], ...], Scored] = {}
    waiting = {level: iter([t for t in order if t.params <= level]) for level in dict.fromkeys(budgets)}
    while waiting and len(chosen) < count:
        for level in list(waiting):
            pick = next((t for t in waiting[level] if tuple(t.sizes.items()) not in chosen), None)
            if pick is None:
                del waiting[level]
            elif len(chosen) < count:
                chosen[tuple(pick.sizes.items())] = pick
    return list(chosen.values())


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
