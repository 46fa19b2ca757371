"""Reads what a search has found from its studies alone: no data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.samplers.trials import read_trials
from optuna_aes.search import settings as settings_of
from optuna_aes.search.records import (
    EXHAUSTED,
    INHERITED,
    METRICS,
    NO_PICKS,
    SECONDS,
    SOURCE,
    Picks,
    has_sizes,
    jobs,
    key_of,
    recorded_picks,
    scored,
    scores,
)
from optuna_aes.search.results import History, Point, Result
from optuna_aes.search.settings import Plan, reference_sizes
from optuna_aes.search.studies import Studies, complete, load
from optuna_aes.search.variant import OWN, Variant
from optuna_aes.space import ClusteredSpace, EmbeddingSpace, Sizes
from optuna_aes.storage import open_storage, read_user_attr


@dataclass(frozen=True)
class Record:
    """A search as its storage holds it.

    Args:
        name: The search's name.
        storage: Where it is.
        studies: Its three studies.
        settings: What may never change.
        data: Where its dataset lies and what is known of it.
        space: What is searched.
        retrain_space: The sizes of the retrain stage: the candidates and the reference points.
        budget: What sizes must fit.
        variant: How its sizes are retrained; the settings are those of the variant.
    """

    name: str
    storage: RDBStorage
    studies: Studies
    settings: dict[str, Any]
    data: dict[str, Any]
    space: EmbeddingSpace
    retrain_space: EmbeddingSpace
    budget: MemoryBudget
    variant: Variant = OWN

    @property
    def plan(self) -> Plan:
        """How much is asked for now."""
        return settings_of.plan_of(self.studies.search)


def open_record(name: str, storage: str | RDBStorage, variant: Variant = OWN) -> Record:
    """Opens a search that exists.

    Args:
        name: The search's name.
        storage: Its storage's URL, or the storage.
        variant: Which of its retrainings.

    Raises:
        StorageError: If the storage cannot be opened, or holds no such search.
        StudyMismatchError: If the study of that name is not a search of ours.
    """
    opened = open_storage(storage, must_exist=True)
    studies = load(opened, name, variant)
    settings, data = settings_of.read(studies.search)
    settings = variant.settings(settings)
    space = _space(settings, "candidates")
    return Record(
        name=name,
        storage=opened,
        studies=studies,
        settings=settings,
        data=data,
        space=space,
        retrain_space=_space(settings, "retrain_candidates"),
        budget=MemoryBudget(space, params=settings["budget"]),
        variant=variant,
    )


def _space(settings: Mapping[str, Any], candidates: str) -> EmbeddingSpace:
    fields = EmbeddingSpace(settings["fields"], settings[candidates], align=settings["model"]["align"])
    return ClusteredSpace(fields, **settings["clusters"]) if "clusters" in settings else fields


def status(record: Record) -> dict[str, Any]:
    """How far each stage is: ``{"study", "strategy", "stages": {stage: counts}}``.

    A stage's counts are ``requested``, ``finished``, ``running``, ``failed`` and ``pruned``. Trials of fit and retrain are
    counted by piece of work: one that failed and was done again is done.
    """
    return {
        "study": record.name,
        "strategy": record.settings["strategy"]["name"],
        "stages": {
            "fit": _fit_counts(record),
            "search": _search_counts(record),
            "retrain": _retrain_counts(record),
        },
    }


def _fit_counts(record: Record) -> dict[str, int]:
    trials = record.studies.fit.get_trials(deepcopy=False)
    states = [t.state for t in trials]
    return {
        "requested": int(record.settings["strategy"].get("one_shot", True)),
        "finished": int(TrialState.COMPLETE in states),
        "running": states.count(TrialState.RUNNING),
        "failed": int(bool(states) and set(states) == {TrialState.FAIL}),
        "pruned": 0,
        "epochs": max((max(t.intermediate_values, default=0) for t in trials), default=0),
    }


def _search_counts(record: Record) -> dict[str, int]:
    trials = read_trials(record.studies.search, record.space)
    finished = trials.count(TrialState.COMPLETE)
    return {
        # A path of sizes may have fewer points than were asked for.
        "requested": finished if record.studies.search.user_attrs.get(EXHAUSTED) else record.plan.trials,
        "finished": finished,
        "running": trials.count(TrialState.RUNNING),
        "failed": trials.count(TrialState.FAIL),
        "pruned": trials.count(TrialState.PRUNED),
    }


def _retrain_counts(record: Record) -> dict[str, int]:
    states: dict[str, set[TrialState]] = {}
    for trial in record.studies.retrain.get_trials(deepcopy=False):
        if has_sizes(trial):
            states.setdefault(key_of(trial, record.retrain_space), set()).add(trial.state)
    rest = [s for s in states.values() if TrialState.COMPLETE not in s]
    return {
        "requested": _retrain_requested(record, set(states)),
        "finished": len(states) - len(rest),
        "running": sum(TrialState.RUNNING in s for s in rest),
        "failed": sum(s == {TrialState.FAIL} for s in rest),
        "pruned": 0,
    }


def _retrain_requested(record: Record, known: set[str]) -> int:
    plan, space = record.plan, record.space
    picks = recorded_picks(record.studies.picks, scored(record.studies.search, record.budget), plan)
    if picks is not None:
        return len(known | {job.key for job in jobs(picks.found, plan, space, seed=record.settings["seed"])})
    # Until the search is over: the references, and as many points as were asked for.
    references = len(reference_sizes(space.full)) if plan.reference else 0
    return max(len(known), (plan.picks + references) * plan.retrain_seeds)


def picks_of(record: Record) -> Picks:
    """What the search picked to be trained from scratch; nothing where it has not come to that yet."""
    trials = scored(record.studies.search, record.budget)
    return recorded_picks(record.studies.picks, trials, record.plan) or NO_PICKS


def result(record: Record) -> Result:
    """The retrained points of a search, by parameters."""
    by_sizes: dict[tuple[int, ...], dict[str, FrozenTrial]] = {}
    for trial in complete(record.studies.retrain):
        if METRICS in trial.user_attrs:
            sizes = record.retrain_space.from_params(trial.params)
            key = key_of(trial, record.retrain_space)
            by_sizes.setdefault(tuple(sizes.values()), {}).setdefault(key, trial)
    points = [_point(record, list(trials.values())) for trials in by_sizes.values()]
    return Result(
        study=record.name,
        strategy=record.settings["strategy"]["name"],
        backbone=record.settings["model"]["backbone"],
        budget={"params": record.budget.params, "bytes": record.budget.bytes},
        full=_params_and_bytes(record.space, record.space.uniform(record.space.full)),
        points=tuple(sorted(points, key=lambda p: (p.params, p.trial))),
        facts=dict(record.data.get("facts") or {}),
        variant=record.variant.label,
    )


def _params_and_bytes(space: EmbeddingSpace, sizes: Mapping[str, int]) -> dict[str, int]:
    cost = space.cost(sizes)
    return {"params": cost.params, "bytes": cost.bytes}


def _point(record: Record, trials: list[FrozenTrial]) -> Point:
    sizes: Sizes = record.retrain_space.from_params(trials[0].params)
    cost = record.space.cost(sizes)
    metrics = {
        k: np.array([t.user_attrs[METRICS][k] for t in trials]) for k in ("auc_valid", "auc_test", "logloss_test")
    }
    best = trials[int(np.argmax(metrics["auc_valid"]))]
    searched = next((t for t in trials if t.user_attrs.get(SOURCE) is not None), trials[0])
    return Point(
        trial=best.number,
        sizes=sizes,
        params=cost.params,
        projections=cost.projections,
        bytes=cost.bytes,
        feasible=record.budget.fits(sizes),
        auc_valid=float(metrics["auc_valid"].mean()),
        auc_test=float(metrics["auc_test"].mean()),
        logloss_test=float(metrics["logloss_test"].mean()),
        auc_test_std=float(metrics["auc_test"].std(ddof=1)) if len(trials) > 1 else 0.0,
        seeds=len(trials),
        uniform=sizes == record.space.uniform(max(sizes.values())) and cost.params > 0,
        search_trial=searched.user_attrs.get(SOURCE),
        auc_inherited=searched.user_attrs.get(INHERITED),
        seconds=float(np.mean([t.user_attrs[METRICS].get("seconds", 0.0) for t in trials])),
        router=cost.router,
    )


def history(record: Record) -> History:
    """How the search went."""
    found = scores(record.studies.search, record.budget)
    fits = complete(record.studies.fit)
    epochs = fits[0].intermediate_values if fits else {}
    retrained = complete(record.studies.retrain)
    return History(
        numbers=tuple(found.numbers.tolist()),
        aucs=tuple(found.aucs.tolist()),
        params=tuple(found.params.tolist()),
        epochs=tuple(epochs[e] for e in sorted(epochs)),
        seconds={
            "fit": sum(float(t.user_attrs.get(SECONDS, 0.0)) for t in fits),
            "search": _search_seconds(record),
            "retrain": sum(float(t.user_attrs.get(METRICS, {}).get("seconds", 0.0)) for t in retrained),
        },
    )


def _search_seconds(record: Record) -> float:
    # In this order: trials that come in between are not asked for.
    seconds = read_user_attr(record.studies.search, SECONDS)
    trials = read_trials(record.studies.search, record.space)
    return sum(float(spent) for number, spent in seconds.items() if trials.complete[number])
