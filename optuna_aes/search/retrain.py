"""Stage 3: the best sizes trained from scratch and measured on test data, trials of the study ``<name>/retrain``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState
from torch import nn

from optuna_aes.models.model import CTRModel
from optuna_aes.models.training import Trainer, auc, logloss, predict
from optuna_aes.search.choose import chosen
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.lend import take_over
from optuna_aes.search.records import (
    INHERITED,
    METRICS,
    SEED,
    SOURCE,
    has_sizes,
    job_key,
    jobs,
    key_of,
)
from optuna_aes.search.studies import complete, enqueue, work_through
from optuna_aes.space import Sizes


def retrain(context: Context) -> None:
    """Trains what the search found, and the reference points, as often as asked for."""
    study, space = context.studies.retrain, context.retrain_space
    wanted = {job.key: job for job in jobs(chosen(context).found, context.plan, context.space, seed=context.seed)}
    trials = [t for t in study.get_trials(deepcopy=False) if has_sizes(t)]
    # What failed for good in an earlier run, such as for want of memory, is tried again.
    known = {key_of(t, space) for t in trials if t.state != TrialState.FAIL}
    known |= take_over(context, [job for key, job in wanted.items() if key not in known])
    for key, job in wanted.items():
        if key not in known:
            attrs: dict[str, Any] = {SEED: job.seed, SOURCE: job.search_trial, INHERITED: job.auc_inherited}
            enqueue(study, space.to_params(job.sizes), **attrs)

    def finished(*also: str) -> int:
        return len({*also, *(key_of(t, space) for t in complete(study))} & wanted.keys())

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        sizes = space.suggest(trial)
        key, params = job_key(sizes, int(trial.user_attrs[SEED])), space.cost(sizes).params
        context.budget.record(trial, sizes)
        metrics = _metrics(context, sizes, int(trial.user_attrs[SEED]), key)
        trial.set_user_attr(METRICS, metrics)
        context.listener.retrained(finished(key), len(wanted), metrics["auc_valid"], params)
        return metrics["auc_test"], float(params)

    context.listener.stage("retrain", finished(), len(wanted))
    work_through(study, objective, listener=context.listener)


def _metrics(context: Context, sizes: Sizes, seed: int, key: str) -> dict[str, float]:
    """Trains a model, unless a trial that was stopped at its very end has done so."""
    final = context.checkpoints(context.studies.retrain, f"model/{key}", keep=1)
    found = final.load()
    metrics = found[1] if found is not None else _train(context, sizes, seed, key, final.save)
    context.checkpoints(context.studies.retrain, f"retrain/{key}").remove()
    return metrics


def _train(context: Context, sizes: Sizes, seed: int, key: str, save_final: Callable[..., None]) -> dict[str, float]:
    task = context.task
    model = build_model(context, sizes, seed)
    trainer = Trainer(model, task.dataset.train, task.dataset.valid, task.train, seed=seed, device=context.device)
    checkpoints = context.checkpoints(context.studies.retrain, f"retrain/{key}")
    resume(trainer, checkpoints)
    trainer.run(on_epoch=saving(checkpoints), on_step=context.listener.step)
    # The only look at the test split.
    probabilities = predict(model, task.dataset.test, task.train.eval_batch_size)
    metrics = {
        "auc_valid": float(trainer.best_auc),
        "auc_test": auc(probabilities, task.dataset.test.labels),
        "logloss_test": logloss(probabilities, task.dataset.test.labels),
        "epochs": float(trainer.epoch),
        "seconds": sum(e.seconds for e in trainer.history),
    }
    save_final(model.state_dict(), metrics, step=trainer.epoch)
    return metrics


def build_model(context: Context, sizes: Sizes, seed: int) -> nn.Module:
    """The untrained right-sized model."""
    task, dim = context.task, context.space.full
    if (partition := context.partition) is not None:
        return CTRModel(task.dataset.schema, sizes, dim=dim, options=task.model, seed=seed, partition=partition)
    return context.strategy.model(
        task.dataset.schema,
        sizes,
        dim=dim,
        options=task.model,
        supernet=lambda: load_supernet(context),
        seed=seed,
    )
