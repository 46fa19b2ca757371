"""Stage 1: the supernet's training, one trial of the study ``<name>/fit``."""

from __future__ import annotations

from typing import Any

import optuna

from optuna_aes.errors import InputError
from optuna_aes.models.supernet import Supernet
from optuna_aes.models.training import Epoch, OnEpoch, work_seconds
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.read import Record
from optuna_aes.search.records import SECONDS
from optuna_aes.search.settings import differences, jsonable, revive
from optuna_aes.search.studies import complete, load
from optuna_aes.search.task import Task
from optuna_aes.search.work import UNDONE, Held, StageError, reason_of, waiting, work_through
from optuna_aes.storage import Checkpoints, WorkQueue
from optuna_aes.strategies.base import OneShot
from optuna_aes.strategies.registry import strategy_class

KEY = "fit"
SUPERNET = "supernet"
# User attribute of a fit's trial: the search that trained the supernet, where it is another one.
OWNER = "aes:supernet_of"


def fit(context: Context) -> None:
    """Trains the supernet, unless it is trained already, or the strategy has none.

    Of several workers one trains it; the others wait.

    Raises:
        StageError: If the training failed for good in another worker; in this one, whatever it failed of is raised.
    """
    if not isinstance(context.strategy, OneShot):
        return
    total = context.task.fit_options.epochs
    done = bool(complete(context.studies.fit))
    context.listener.stage("fit", total if done else 0, total)
    if not done:
        _train(context)


def _train(context: Context, *, besides: int = 0) -> None:
    """Has the supernet trained, here or elsewhere; where so many trainings are of no use, once more."""
    study = context.studies.fit
    trials = study.get_trials(deepcopy=False)
    done = len(complete(study)) > besides
    if not done and not any(t.state in UNDONE or context.given_up(study, t) for t in trials):
        WorkQueue(study).add([waiting()], first=len(trials))  # one worker's: all others come too late
    error = work_through(study, lambda held: _objective(context, held), crew=context.crew)
    if len(complete(study)) > besides:
        return
    if error is not None:
        raise error
    raise StageError(
        f"the fit of {context.studies.search.study_name!r} failed for good ({reason_of(study)}): `optuna-aes search` tries it "
        "again"
    )


def check_shared(task: Task, strategy: OneShot, other: Record) -> None:
    """Refuses to take over a supernet that is not there, or not what the strategy would train.

    Raises:
        InputError: If it is so.
    """
    mine = {
        "dataset": task.dataset.fingerprint,
        "candidates": list(task.candidates),
        "model": jsonable(task.model),
        "fit": jsonable(task.fit_options),
        "strategy": jsonable(strategy.fit_settings),
    }
    for key, theirs, ours in differences(_fit_settings_of(other), mine):
        raise InputError(
            f"supernet_of={other.name!r} has another supernet: its {key} is {theirs!r}, here it is {ours!r}"
        )
    if not complete(other.studies.fit):
        raise InputError(f"supernet_of={other.name!r} has not trained its supernet yet: run that search first")


def share_supernet(study: optuna.Study, other: Record) -> None:
    """Takes over the trained supernet of another search in the same storage.

    The fit's trial is copied, with its seconds: a search costs what it would have cost alone.

    Args:
        study: The fit study of the search that takes it over; one that has trials is left alone.
        other: The search that trained it.
    """
    if study.get_trials(deepcopy=False):
        return
    trained = complete(other.studies.fit)[0]
    copy = optuna.create_trial(
        value=trained.value,
        intermediate_values=trained.intermediate_values,
        user_attrs={
            SECONDS: trained.user_attrs[SECONDS],
            OWNER: trained.user_attrs.get(OWNER, other.name),
        },
    )
    WorkQueue(study).add([copy], first=0)


def _fit_settings_of(record: Record) -> dict[str, Any]:
    settings = record.settings
    kind = strategy_class(settings["strategy"]["name"])
    strategy = revive(kind, settings["strategy"]["options"])
    known = {key: settings[key] for key in ("dataset", "candidates", "model", "fit")}
    return {**known, "strategy": jsonable(strategy.fit_settings) if isinstance(strategy, OneShot) else None}


def _owner(context: Context) -> optuna.Study:
    """The fit study whose artifact the supernet is: this search's, or that of the search it is shared with."""
    study = context.studies.fit
    for trial in complete(study):
        if (owner := trial.user_attrs.get(OWNER)) is not None:
            return load(context.storage, owner).fit
    return study


def load_supernet(context: Context) -> Supernet:
    """The trained supernet."""
    found = context.checkpoints(_owner(context), SUPERNET, keep=1).load()
    if found is None:  # finished, and its weights are gone: train it again
        context.listener.note("the supernet's weights are missing from the artifact store: training it again")
        _train(context, besides=len(complete(context.studies.fit)))
        found = context.checkpoints(context.studies.fit, SUPERNET, keep=1).load()
        assert found is not None
    supernet = _untrained(context)
    supernet.load_state_dict(found[0])
    return supernet.to(context.device)


def _untrained(context: Context) -> Supernet:
    # Strategies of a user's own need not know of blocks.
    blocks: dict[str, Any] = {} if context.partition is None else {"partition": context.partition}
    return context.one_shot.supernet(
        context.task.dataset.schema, context.task.candidates, model=context.task.model, seed=context.seed, **blocks
    )


def _objective(context: Context, held: Held) -> float:
    study, trial = context.studies.fit, held.trial
    final = context.checkpoints(study, SUPERNET, keep=1)
    if (found := final.load()) is not None:  # killed between the last write and the trial's end
        return float(found[1]["auc"])
    supernet = _untrained(context)
    trainer = context.one_shot.trainer(
        supernet, context.task.dataset, options=context.task.fit_options, seed=context.seed, device=context.device
    )
    trainer.parts = held.shrink
    checkpoints = context.checkpoints(study, KEY)
    context.listener.stage("fit", resume(trainer, checkpoints), context.task.fit_options.epochs)
    trainer.run(on_epoch=_on_epoch(context, held, checkpoints), on_step=context.listener.step)
    started = work_seconds(context.device)
    context.one_shot.finish(supernet, context.task.dataset, seed=context.seed)
    seconds = sum(e.seconds for e in trainer.history) + work_seconds(context.device) - started
    held.check()
    trial.set_user_attr(SECONDS, seconds)
    meta = {"auc": trainer.best_auc, "seconds": seconds}
    final.save(supernet.state_dict(), meta, step=trainer.epoch)
    checkpoints.remove()
    return float(trainer.best_auc)


def _on_epoch(context: Context, held: Held, checkpoints: Checkpoints) -> OnEpoch:
    listener, study = context.listener, context.studies.fit
    reported = set(study._storage.get_trial(held.trial._trial_id).intermediate_values)
    save = saving(checkpoints, held, listener)

    def on_epoch(epoch: Epoch, state: Any) -> None:
        save(epoch, state)
        if epoch.number not in reported:
            held.trial.report(epoch.auc, epoch.number)
        listener.epoch(epoch, context.task.fit_options.epochs)

    return on_epoch
