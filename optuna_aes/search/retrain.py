"""Stage 3: the best sizes trained from scratch and measured on test data, trials of the study ``<name>/retrain``."""

from __future__ import annotations

from collections.abc import Callable

from optuna.trial import FrozenTrial, TrialState
from torch import nn

from optuna_aes.budget import CONSTRAINT
from optuna_aes.errors import InputError
from optuna_aes.models.evaluation import auc, logloss, predict
from optuna_aes.models.inherit import inherit
from optuna_aes.models.model import CTRModel
from optuna_aes.models.training import Trainer
from optuna_aes.search.choose import chosen
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.lend import copies_of
from optuna_aes.search.records import (
    INHERITED,
    METRICS,
    SEED,
    SOURCE,
    Job,
    has_sizes,
    job_key,
    jobs,
    key_of,
)
from optuna_aes.search.settings import Plan
from optuna_aes.search.studies import complete
from optuna_aes.search.work import Held, StageError, reason_of, waiting, work_through
from optuna_aes.space import Sizes
from optuna_aes.storage import WorkQueue
from optuna_aes.strategies.base import OneShot, Strategy


def retrain(context: Context, plan: Plan) -> None:
    """Trains what the search found, and the reference points, as often as asked for.

    Where only others have work left and another run asks for more, it ends: there is something to do again.

    Args:
        context: The search.
        plan: What is asked for.

    Raises:
        StageError: If every training failed for good; where it was this worker's, what the last one failed of is raised.
    """
    study, space = context.studies.retrain, context.retrain_space
    wanted = _lay_out(context, plan)

    def finished(*also: str) -> int:
        return len({*also, *(key_of(t, space) for t in complete(study))} & wanted)

    def objective(held: Held) -> tuple[float, float]:
        sizes, seed = space.suggest(held.trial), int(held.trial.user_attrs[SEED])
        key, params = job_key(sizes, seed), space.cost(sizes).params
        context.budget.record(held.trial, sizes)
        metrics = _metrics(context, held, sizes, seed, key)
        held.trial.set_user_attr(METRICS, metrics)
        context.listener.retrained(finished(key), len(wanted), metrics["auc_valid"], params)
        return metrics["auc_test"], float(params)

    context.listener.stage("retrain", finished(), len(wanted))
    error = work_through(study, objective, crew=context.crew, leave=lambda: context.plan != plan)
    if context.plan != plan:
        return
    missing = len(wanted) - finished()
    if missing and missing == len(wanted):
        raise error or StageError(f"no training from scratch succeeded ({reason_of(study)})")
    if missing:
        context.listener.note(
            f"{missing} of {len(wanted)} trainings failed for good ({reason_of(study)}): `optuna-aes search` tries them again"
        )


def _lay_out(context: Context, plan: Plan) -> set[str]:
    """Lays out what is to be trained and is not yet: one worker does, and the others find it laid out."""
    study, space, queue = context.studies.retrain, context.retrain_space, WorkQueue(context.studies.retrain)
    wanted = {job.key: job for job in jobs(chosen(context, plan).found, plan, context.space, seed=context.seed)}
    while True:
        trials = study.get_trials(deepcopy=False)
        # What failed for good in an earlier run, such as for want of memory, is tried again.
        ours = [t for t in trials if has_sizes(t)]
        known = {key_of(t, space) for t in ours if t.state != TrialState.FAIL or context.given_up(study, t)}
        new = [job for key, job in wanted.items() if key not in known]
        copies = copies_of(context, new)
        laid_out = [copies.get(job.key) or _template(context, job) for job in new]
        if not new or queue.add(laid_out, first=len(trials)):
            return set(wanted)


def _template(context: Context, job: Job) -> FrozenTrial:
    space = context.retrain_space
    return waiting(
        space.to_params(job.sizes),
        space.distributions(),
        constraints={CONSTRAINT: context.budget.violation(job.sizes)},
        attrs={SEED: job.seed, SOURCE: job.search_trial, INHERITED: job.auc_inherited},
    )


def _metrics(context: Context, held: Held, sizes: Sizes, seed: int, key: str) -> dict[str, float]:
    """Trains a model, unless a trial that was stopped at its very end has done so."""
    final = context.checkpoints(context.studies.retrain, f"model/{key}", keep=1)
    found = final.load()
    metrics = found[1] if found is not None else _train(context, held, sizes, seed, key, final.save)
    held.check()
    context.checkpoints(context.studies.retrain, f"retrain/{key}").remove()
    return metrics


def _train(
    context: Context, held: Held, sizes: Sizes, seed: int, key: str, save_final: Callable[..., None]
) -> dict[str, float]:
    task = context.task
    model = build_model(context, sizes, seed)
    trainer = Trainer(model, task.dataset.train, task.dataset.valid, task.train, seed=seed, device=context.device)
    checkpoints = context.checkpoints(context.studies.retrain, f"retrain/{key}")
    trainer.parts = held.shrink
    resume(trainer, checkpoints)
    trainer.run(on_epoch=saving(checkpoints, held, context.listener), on_step=context.listener.step)
    # The only look at the test split.
    probabilities = predict(model, task.dataset.test, task.train.eval_batch_size)
    metrics = {
        "auc_valid": float(trainer.best_auc),
        "auc_test": auc(probabilities, task.dataset.test.labels),
        "logloss_test": logloss(probabilities, task.dataset.test.labels),
        "epochs": float(trainer.epoch),
        "seconds": sum(e.seconds for e in trainer.history),
    }
    held.check()
    save_final(model.state_dict(), metrics, step=trainer.epoch)
    return metrics


def check_inherits(context: Context) -> None:
    """Refuses to start from the weights of a supernet that has none to give.

    Raises:
        InputError: If it is so.
    """
    strategy = context.strategy
    if not isinstance(strategy, OneShot) or type(strategy).model is not Strategy.model:
        raise InputError(
            f"strategy={strategy.name!r} has no supernet whose weights a model of one size each could take"
        )
    if not strategy.table_per_field or context.partition is not None:
        raise InputError(
            "inherited weights need one table per field: tables per candidate, or blocks, cannot give them"
        )


def build_model(context: Context, sizes: Sizes, seed: int) -> nn.Module:
    """The right-sized model that is to be trained."""
    task, dim, options = context.task, context.space.full, context.retrain_model
    if (partition := context.partition) is not None:
        return CTRModel(task.dataset.schema, sizes, dim=dim, options=options, seed=seed, partition=partition)
    model = context.strategy.model(
        task.dataset.schema,
        sizes,
        dim=dim,
        options=options,
        supernet=lambda: load_supernet(context),
        seed=seed,
    )
    if context.variant.inherited:
        assert isinstance(model, CTRModel)
        supernet = load_supernet(context).cpu()
        inherit(model, supernet, supernet.embedding.columns_kept(sizes.values()))
    return model
