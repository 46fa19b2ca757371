"""Stage 2 without a supernet: each trial of the study ``<name>`` is trained from scratch."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from optuna_aes.models.training import Epoch, Trainer
from optuna_aes.pruners import FrontPruner
from optuna_aes.pruners.front import CURVE
from optuna_aes.search.context import Context, resume, saving
from optuna_aes.search.propose import proposer_of, recorded
from optuna_aes.search.records import SECONDS, job_key, scored
from optuna_aes.search.results import non_dominated
from optuna_aes.search.retrain import build_model
from optuna_aes.search.work import MOST_FAILED, UNDONE, Held, StageError, reason_of, work_through
from optuna_aes.space import Sizes
from optuna_aes.storage import WorkQueue


def score_by_training(context: Context) -> None:
    """Trains proposed sizes until as many trainings are done as are asked for; several workers train side by side.

    A training that the front pruner ends counts too: it has cost what it has cost. Proposals over budget do not.

    Raises:
        StageError: If trainings fail again and again.
    """
    study = context.studies.search
    propose = proposer_of(context, None)
    context.listener.stage("search", _trained(study), context.plan.trials)
    failed_before = _count(study, TrialState.FAIL)

    def more(queue: WorkQueue) -> bool:
        trials = study.get_trials(deepcopy=False)
        if sum(_is_trained(t) or t.state in UNDONE for t in trials) >= context.plan.trials:
            return False
        if sum(t.state == TrialState.FAIL for t in trials) - failed_before >= max(MOST_FAILED, _trained(study)):
            raise StageError(f"trainings fail again and again ({reason_of(study)})")
        proposals = propose(study, len(trials))
        queue.add([recorded(context, p, state=TrialState.WAITING) for p in proposals], first=len(trials))
        return bool(proposals)

    work_through(study, lambda held: _objective(context, held), crew=context.crew, more=more)


def _is_trained(trial: FrozenTrial) -> bool:
    return CURVE in trial.user_attrs and trial.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _trained(study: optuna.Study) -> int:
    return sum(_is_trained(t) for t in study.get_trials(deepcopy=False))


def _count(study: optuna.Study, state: TrialState) -> int:
    return len(study.get_trials(deepcopy=False, states=(state,)))


def _objective(context: Context, held: Held) -> tuple[float, float]:
    study, task, trial = context.studies.search, context.task, held.trial
    sizes: Sizes = context.space.suggest(trial)
    params = context.space.cost(sizes).params
    context.budget.record(trial, sizes)
    model = build_model(context, sizes, context.seed)
    trainer = Trainer(
        model, task.dataset.train, task.dataset.valid, task.train, seed=context.seed, device=context.device
    )
    trainer.parts = held.shrink
    checkpoints = context.checkpoints(study, f"search/{job_key(sizes, context.seed)}")
    resume(trainer, checkpoints)
    save, pruner = saving(checkpoints, held, context.listener), FrontPruner()

    def on_epoch(epoch: Epoch, state: Any) -> None:
        save(epoch, state)
        pruner.report(trial, epoch.auc, epoch.number, cost=params)
        trial.set_user_attr(SECONDS, sum(e.seconds for e in trainer.history))
        if context.strategy.prune and pruner.should_prune(trial):
            checkpoints.remove()
            raise optuna.TrialPruned(f"cheaper sizes were better after epoch {epoch.number}")

    trainer.run(on_epoch=on_epoch, on_step=context.listener.step)
    held.check()
    checkpoints.remove()
    known = scored(study, context.budget)
    aucs, costs = [*(t.auc for t in known), trainer.best_auc], [*(t.params for t in known), params]
    front = non_dominated(aucs, costs)
    context.listener.scored(_trained(study) + 1, context.plan.trials, max(aucs), len(front))
    return float(trainer.best_auc), float(params)
