"""The three studies of a search: created, found, loaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.errors import InputError, StorageError, StudyMismatchError
from optuna_aes.search.variant import OWN, Variant

FIT, RETRAIN = "/fit", "/retrain"

Direction = Literal["minimize", "maximize"]

_PAIR: list[Direction] = ["maximize", "minimize"]
_RETRAINED = ["test AUC", "embedding parameters"]


@dataclass(frozen=True)
class Studies:
    """The studies of one search: ``<name>/fit``, ``<name>`` and ``<name>/retrain``.

    Args:
        fit: The supernet's training.
        search: Scored sizes.
        retrain: Trainings from scratch, of the search's own or of a variant.
        picks: The study whose attributes name what is to be trained, the search's own ``retrain``.
    """

    fit: optuna.Study
    search: optuna.Study
    retrain: optuna.Study
    picks: optuna.Study


def check_name(name: str) -> None:
    """Refuses what cannot name a search.

    Raises:
        InputError: If it cannot.
    """
    if not name or len(name) > 400 or not name.isprintable():
        raise InputError(f"name={name!r} cannot name a study: use 1 to 400 printable letters")
    if name.endswith((FIT, RETRAIN)) or RETRAIN + "@" in name:
        raise InputError(f"name={name!r} ends like a stage's study: choose another name")


def create(storage: RDBStorage, name: str) -> Studies:
    """Creates the studies that are not there yet."""
    check_name(name)
    # The main study comes first: where its name is taken by another kind of study, nothing is created.
    search = _create(storage, name, _PAIR, ["inherited validation AUC", "embedding parameters"])
    fit = _create(storage, name + FIT, ["maximize"], ["supernet validation AUC"])
    retrain = _create(storage, name + RETRAIN, _PAIR, _RETRAINED)
    return Studies(fit, search, retrain, picks=retrain)


def create_variant(storage: RDBStorage, name: str, variant: Variant) -> None:
    """Creates the retrain study of a variant of a search that exists, if it is not there yet."""
    _create(storage, retrain_name(name, variant), _PAIR, _RETRAINED)


def retrain_name(name: str, variant: Variant) -> str:
    """The name of the study where a variant of a search is retrained."""
    return name + RETRAIN + (f"@{variant.label}" if variant.label else "")


def _create(storage: RDBStorage, name: str, directions: list[Direction], metrics: list[str]) -> optuna.Study:
    made = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=directions,
        load_if_exists=True,
        # Ours are proposed in groups or enqueued; Optuna's default would be built for nothing.
        sampler=RandomSampler(seed=0),
    )
    if len(made.directions) != len(directions) or (not made.metric_names and made.get_trials(deepcopy=False)):
        raise StudyMismatchError(f"study {name!r} exists and is not a search of optuna_aes: choose another name")
    if not made.metric_names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            made.set_metric_names(metrics)
    return made


def find(storage: RDBStorage, name: str) -> optuna.Study | None:
    """The main study of a search, or None where no study has the name."""
    try:
        return load_study(storage, name)
    except KeyError:
        return None


def load_study(storage: RDBStorage, name: str) -> optuna.Study:
    """One study; raises ``KeyError`` where there is none of that name."""
    return optuna.load_study(storage=storage, study_name=name, sampler=RandomSampler(seed=0))


def names(storage: RDBStorage) -> list[str]:
    """Names of the searches that the storage holds; those of other studies are left out."""
    every = set(optuna.get_all_study_names(storage))
    return sorted(n for n in every if {n + FIT, n + RETRAIN} <= every)


def load(storage: RDBStorage, name: str, variant: Variant = OWN) -> Studies:
    """The studies of a search that exists.

    Raises:
        StorageError: If there is no search of that name, or it was never retrained that way.
    """
    try:
        fit, search, retrain = (load_study(storage, name + suffix) for suffix in (FIT, "", RETRAIN))
    except KeyError:
        known = names(storage)
        there = f"the storage holds {', '.join(known[:5])}" if known else "the storage holds no search"
        raise StorageError(f"there is no search named {name!r}: {there}") from None
    if variant == OWN:
        return Studies(fit, search, retrain, picks=retrain)
    try:
        return Studies(fit, search, load_study(storage, retrain_name(name, variant)), picks=retrain)
    except KeyError:
        how = "--inherited" if variant.inherited else f"--backbone {variant.backbone}"
        raise StorageError(
            f"search {name!r} has no study {retrain_name(name, variant)!r}: run optuna-aes retrain {how} first"
        ) from None


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The finished trials of a study, by number."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def trials_of(study: optuna.Study, numbers: Sequence[int]) -> list[FrozenTrial]:
    """Some trials of a study, by their numbers."""
    storage = study._storage
    return [storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study._study_id, n)) for n in numbers]
