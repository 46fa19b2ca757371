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
# User attribute of the retrain study: which trials of the search are retrained.
CHOSEN = "aes:chosen"


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
