"""Stage 2 without a supernet: each trial of the study ``<name>`` is trained from scratch."""

from __future__ import annotations

from typing import Any

import optuna

from optuna_aes.models.training import Epoch, Trainer
from optuna_aes.pruners import FrontPruner
from optuna_aes.pruners.front import CURVE
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.propose import proposer_of, recorded
from optuna_aes.search.records import SECONDS, job_key, scored
from optuna_aes.search.results import non_dominated
from optuna_aes.search.retrain import build_model
from optuna_aes.search.studies import UNDONE, enqueue, work_through
from optuna_aes.space import Sizes


def score_by_training(context: Context) -> None:
    """Trains proposed sizes one after the other until as many trainings are done as are asked for.

    A training that the front pruner ends counts too: it has cost what it has cost. Proposals over budget do not.
    """
    study, requested = context.studies.search, context.plan.trials
    propose = proposer_of(context, None)
    context.listener.stage("search", _trained(study), requested)
    while True:
        if study.get_trials(deepcopy=False, states=UNDONE):  # left by a run that was killed, or another worker's
            work_through(study, lambda trial: _objective(context, trial), listener=context.listener)
        if _trained(study) >= requested:
            return
        for proposal in propose(study, len(study.get_trials(deepcopy=False))):
            if context.budget.fits(proposal.sizes):
                params = context.space.to_params(proposal.sizes)
                enqueue(study, params, system_attrs=proposal.system_attrs)
            else:
                study.add_trial(recorded(context, proposal, None))


def _trained(study: optuna.Study) -> int:
    return sum(CURVE in t.user_attrs and t.state.is_finished() for t in study.get_trials(deepcopy=False))


def _objective(context: Context, trial: optuna.Trial) -> tuple[float, float]:
    study, task = context.studies.search, context.task
    sizes: Sizes = context.space.suggest(trial)
    params = context.space.cost(sizes).params
    context.budget.record(trial, sizes)
    model = build_model(context, sizes, context.seed)
    trainer = Trainer(
        model, task.dataset.train, task.dataset.valid, task.train, seed=context.seed, device=context.device
    )
    checkpoints = context.checkpoints(study, f"search/{job_key(sizes, context.seed)}")
    resume(trainer, checkpoints)
    save, pruner = saving(checkpoints), FrontPruner()

    def on_epoch(epoch: Epoch, state: Any) -> None:
        save(epoch, state)
        pruner.report(trial, epoch.auc, epoch.number, cost=params)
        trial.set_user_attr(SECONDS, sum(e.seconds for e in trainer.history))
        if getattr(context.strategy, "prune", False) and pruner.should_prune(trial):
            checkpoints.remove()
            raise optuna.TrialPruned(f"cheaper sizes were better after epoch {epoch.number}")

    trainer.run(on_epoch=on_epoch, on_step=context.listener.step)
    checkpoints.remove()
    known = scored(study, context.budget)
    aucs, costs = [*(t.auc for t in known), trainer.best_auc], [*(t.params for t in known), params]
    front = non_dominated(aucs, costs)
    context.listener.scored(_trained(study) + 1, context.plan.trials, max(aucs), len(front))
    return float(trainer.best_auc), float(params)
