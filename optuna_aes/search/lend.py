"""Trainings that another search has done already: the same sizes, seed, data and model give the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from optuna_aes.budget import CONSTRAINT
from optuna_aes.search.context import Context
from optuna_aes.search.read import Record
from optuna_aes.search.records import INHERITED, METRICS, SEED, SOURCE, TRAINED_IN, Job, has_sizes, key_of
from optuna_aes.search.settings import jsonable
from optuna_aes.search.studies import complete
from optuna_aes.strategies.base import Strategy
from optuna_aes.strategies.registry import strategy_class


def copies_of(context: Context, jobs: Sequence[Job]) -> dict[str, FrozenTrial]:
    """What the searches of ``context.trained_by`` have done of the jobs: finished trials to add, by the jobs' keys.

    A copy has the metrics of its original, seconds included, and names the study that holds the weights.
    """
    found: dict[str, FrozenTrial] = {}
    if context.variant.inherited or context.partition is not None or type(context.strategy).model is not Strategy.model:
        return found  # these models depend on more than their sizes
    wanted = {job.key: job for job in jobs}
    for other in context.trained_by:
        if other.name == context.studies.search.study_name or not _alike(context, other):
            continue
        for trial in complete(other.studies.retrain):
            if METRICS in trial.user_attrs and has_sizes(trial):
                job = wanted.pop(key_of(trial, other.retrain_space), None)
                if job is not None:
                    owner = trial.user_attrs.get(TRAINED_IN, other.studies.retrain.study_name)
                    found[job.key] = _copy(context, job, trial, owner)
    return found


def _alike(context: Context, other: Record) -> bool:
    """Whether the models of another search are those of this one, wherever the sizes are the same."""
    task, settings = context.task, other.settings
    return (
        settings["dataset"] == task.dataset.fingerprint
        and settings["model"] == jsonable(context.retrain_model)
        and settings["train"] == jsonable(task.train)
        and max(settings["candidates"]) == context.space.full
        and settings["artifacts"] == context.artifacts
        and "blocks" not in settings
        and strategy_class(settings["strategy"]["name"]).model is Strategy.model
    )


def _copy(context: Context, job: Job, trial: FrozenTrial, study: str) -> FrozenTrial:
    space = context.retrain_space
    attrs = {SEED: job.seed, SOURCE: job.search_trial, INHERITED: job.auc_inherited, TRAINED_IN: study}
    return optuna.create_trial(
        values=trial.values,
        params=space.to_params(job.sizes),
        distributions=dict(space.distributions()),
        constraints={CONSTRAINT: context.budget.violation(job.sizes)},
        user_attrs={**attrs, METRICS: trial.user_attrs[METRICS]},
    )
