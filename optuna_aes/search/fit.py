"""Stage 1: the supernet's training, one trial of the study ``<name>/fit``."""

from __future__ import annotations

import time
from typing import Any

import optuna

from optuna_aes.models.supernet import Supernet
from optuna_aes.models.training import Epoch
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.records import SECONDS
from optuna_aes.search.studies import UNDONE, complete, enqueue, work_through
from optuna_aes.strategies.base import OneShot

KEY = "fit"
SUPERNET = "supernet"


def fit(context: Context) -> None:
    """Trains the supernet, unless it is trained already, or the strategy has none."""
    if not isinstance(context.strategy, OneShot):
        return
    study = context.studies.fit
    total = context.task.fit_options.epochs
    done = bool(complete(study))
    context.listener.stage("fit", total if done else 0, total)
    if done:
        return
    if not study.get_trials(deepcopy=False, states=UNDONE):
        enqueue(study, {})
    work_through(study, lambda trial: _objective(context, trial), listener=context.listener)


def load_supernet(context: Context) -> Supernet:
    """The trained supernet."""
    found = context.checkpoints(context.studies.fit, SUPERNET, keep=1).load()
    if found is None:  # finished, and its weights are gone: train it again
        context.listener.note("the supernet's weights are missing from the artifact store: training it again")
        enqueue(context.studies.fit, {})
        work_through(context.studies.fit, lambda trial: _objective(context, trial), listener=context.listener)
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


def _objective(context: Context, trial: optuna.Trial) -> float:
    study, listener = context.studies.fit, context.listener
    final = context.checkpoints(study, SUPERNET, keep=1)
    if (found := final.load()) is not None:  # killed between the last write and the trial's end
        return float(found[1]["auc"])
    supernet = _untrained(context)
    options = context.task.fit_options
    trainer = context.one_shot.trainer(
        supernet, context.task.dataset, options=options, seed=context.seed, device=context.device
    )
    checkpoints = context.checkpoints(study, KEY)
    done = resume(trainer, checkpoints)
    listener.stage("fit", done, options.epochs)
    reported = set(study._storage.get_trial(trial._trial_id).intermediate_values)
    save = saving(checkpoints)

    def on_epoch(epoch: Epoch, state: Any) -> None:
        save(epoch, state)
        if epoch.number not in reported:
            trial.report(epoch.auc, epoch.number)
        listener.epoch(epoch, options.epochs)

    trainer.run(on_epoch=on_epoch, on_step=listener.step)
    started = time.perf_counter()
    context.one_shot.finish(supernet, context.task.dataset, seed=context.seed)
    seconds = sum(e.seconds for e in trainer.history) + time.perf_counter() - started
    trial.set_user_attr(SECONDS, seconds)
    meta = {"auc": trainer.best_auc, "seconds": seconds}
    final.save(supernet.state_dict(), meta, step=trainer.epoch)
    checkpoints.remove()
    return float(trainer.best_auc)
