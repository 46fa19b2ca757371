"""Stage 3: the best sizes trained from scratch and measured on test data, trials of the study ``<name>/retrain``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import optuna

from optuna_aes.budget import CONSTRAINT
from optuna_aes.models.model import CTRModel
from optuna_aes.models.training import Trainer, auc, logloss, predict
from optuna_aes.search.choose import chosen
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.records import (
    INHERITED,
    METRICS,
    SEED,
    SOURCE,
    UNIFORM,
    has_sizes,
    job_key,
    key_of,
)
from optuna_aes.search.studies import complete, enqueue, work_through
from optuna_aes.search.task import reference_sizes
from optuna_aes.space import Sizes


@dataclass(frozen=True)
class Job:
    """One training from scratch: sizes and seed, and where the sizes come from."""

    sizes: Sizes
    seed: int
    uniform: bool
    search_trial: int | None = None
    auc_inherited: float | None = None

    @property
    def key(self) -> str:
        """The same for the same sizes and seed, whichever trial runs them."""
        return job_key(self.sizes, self.seed)


def retrain(context: Context) -> None:
    """Trains what the search found, and the reference points, as often as asked for."""
    study = context.studies.retrain
    wanted = list(jobs(context))
    known = {key_of(t, context.task.retrain_space) for t in study.get_trials(deepcopy=False) if has_sizes(t)}
    for job in wanted:
        if job.key not in known:
            attrs = {SEED: job.seed, UNIFORM: job.uniform, SOURCE: job.search_trial, INHERITED: job.auc_inherited}
            enqueue(study, context.task.retrain_space.to_params(job.sizes), **attrs)
    finished = len({key_of(t, context.task.retrain_space) for t in complete(study)} & {j.key for j in wanted})
    context.listener.stage("retrain", finished, len(wanted))
    work_through(study, lambda trial: _objective(context, trial, len(wanted)), listener=context.listener)


def jobs(context: Context) -> Iterator[Job]:
    """What the retrain stage consists of, as far as the search has come."""
    plan = context.plan
    picks = chosen(context)
    uniform = [context.space.uniform(d) for d in reference_sizes(context.space.full)] if plan.reference else []
    # Seed by seed, so that a run that is stopped early has every point once before any twice.
    for seed in range(context.seed, context.seed + plan.retrain_seeds):
        for pick in picks:
            yield Job(pick.sizes, seed, pick.sizes in uniform, pick.number, pick.auc)
        for sizes in uniform:
            if all(sizes != pick.sizes for pick in picks):
                yield Job(sizes, seed, uniform=True)


def _objective(context: Context, trial: optuna.Trial, total: int) -> tuple[float, float]:
    space = context.task.retrain_space
    sizes = space.suggest(trial)
    params = space.cost(sizes).params
    trial.set_constraint(CONSTRAINT, context.budget.violation(sizes))
    key = job_key(sizes, int(trial.user_attrs[SEED]))
    final = context.checkpoints(context.studies.retrain, f"model/{key}", keep=1)
    found = final.load()
    metrics = found[1] if found is not None else _train(context, sizes, int(trial.user_attrs[SEED]), key, final.save)
    context.checkpoints(context.studies.retrain, f"retrain/{key}").remove()
    trial.set_user_attr(METRICS, metrics)
    done = len({key_of(t, space) for t in complete(context.studies.retrain)}) + 1
    context.listener.retrained(done, total, metrics["auc_valid"], params)
    return metrics["auc_test"], float(params)


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


def build_model(context: Context, sizes: Sizes, seed: int) -> CTRModel:
    """The untrained right-sized model."""
    task = context.task
    return CTRModel(task.dataset.schema, sizes, dim=context.space.full, options=task.model, seed=seed)
