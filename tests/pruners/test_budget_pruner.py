from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, MedianPruner
from optuna.trial import TrialState

from optuna_aes.budget import CONSTRAINT, MemoryBudget
from optuna_aes.pruners import BudgetPruner
from optuna_aes.space import EmbeddingSpace

SPACE = EmbeddingSpace({"user": 100, "item": 300}, candidates=(0, 2, 4))
BUDGET = MemoryBudget(SPACE, params=800)
FITS, OVER = {"size:user": 2, "size:item": 2}, {"size:user": 2, "size:item": 4}


class Always(BasePruner):
    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return True


def asked(params: dict[str, Any], pruner: BasePruner, *, suggest: bool = True) -> optuna.Trial:
    study = optuna.create_study(pruner=pruner)
    study.enqueue_trial(params)
    trial = study.ask()
    if suggest:
        SPACE.suggest(trial)
    return trial


@pytest.mark.parametrize(("params", "prunes"), [(FITS, False), (OVER, True)])
def test_sizes_over_budget_are_pruned(params: dict[str, Any], prunes: bool) -> None:
    assert asked(params, BudgetPruner(BUDGET)).should_prune() == prunes


def test_nothing_is_pruned_before_all_sizes_are_known() -> None:
    trial = asked({"size:user": 4, "size:item": 4}, BudgetPruner(BUDGET), suggest=False)
    assert not trial.should_prune()
    trial.suggest_categorical("size:item", SPACE.candidates)  # over budget whatever the other is
    assert not trial.should_prune()
    SPACE.suggest(trial)
    assert trial.should_prune()


def test_the_inner_pruner_decides_on_what_fits() -> None:
    assert asked(FITS, BudgetPruner(BUDGET, inner=Always())).should_prune()
    trial = asked(OVER, BudgetPruner(BUDGET, inner=MedianPruner()))
    assert trial.should_prune()


def test_the_inner_pruner_sees_the_reports() -> None:
    study = optuna.create_study(
        direction="maximize", pruner=BudgetPruner(BUDGET, inner=MedianPruner(n_startup_trials=1))
    )
    for value in (0.9, 0.1):
        study.enqueue_trial(FITS)
        trial = study.ask()
        SPACE.suggest(trial)
        trial.report(value, 0)
        trial.report(value, 1)
        assert trial.should_prune() == (value == 0.1)
        study.tell(trial, value)


def test_a_search_with_optunas_own_sampler_trains_only_what_fits() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=BudgetPruner(BUDGET))
    trained: list[dict[str, int]] = []

    def objective(trial: optuna.Trial) -> float:
        sizes = SPACE.suggest(trial)
        trial.report(0.0, 0)
        if trial.should_prune():
            raise optuna.TrialPruned
        trained.append(sizes)
        return 0.5

    study.optimize(objective, 40)
    states = {t.number: t.state for t in study.trials}
    assert 0 < len(trained) < 40
    assert all(
        (states[t.number] == TrialState.COMPLETE) == BUDGET.fits(SPACE.from_params(t.params)) for t in study.trials
    )
    assert all(BUDGET.fits(sizes) for sizes in trained)


@pytest.mark.parametrize("directions", [["maximize"], ["maximize", "minimize"]])
def test_check_guards_studies_of_one_objective_and_of_several(directions: list[str]) -> None:
    """The larger sizes score better, and only those that fit are best."""
    study = optuna.create_study(
        directions=directions, sampler=optuna.samplers.RandomSampler(seed=0), pruner=BudgetPruner(BUDGET)
    )

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        sizes = SPACE.suggest(trial)
        BUDGET.check(trial, sizes)
        return (float(sizes["user"] + sizes["item"]), float(SPACE.cost(sizes).params))[: len(directions)]

    study.optimize(objective, 40)
    for trial in study.trials:
        sizes = SPACE.from_params(trial.params)
        assert trial.constraints == {CONSTRAINT: BUDGET.used(sizes) - 1}
        assert trial.state == (TrialState.COMPLETE if BUDGET.fits(sizes) else TrialState.PRUNED)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_trials
    assert all(BUDGET.fits(SPACE.from_params(t.params)) for t in study.best_trials)


def test_trials_over_budget_that_were_not_pruned_are_not_best() -> None:
    """An objective that records the constraint and trains all the same."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for params in (FITS, OVER):
        study.enqueue_trial(params)
        trial = study.ask()
        sizes = SPACE.suggest(trial)
        trial.set_constraint(CONSTRAINT, BUDGET.violation(sizes))
        study.tell(trial, (float(sum(sizes.values())), 1.0))
    assert [t.params for t in study.best_trials] == [FITS]
