from __future__ import annotations

import optuna
import pytest

from optuna_aes.errors import InputError
from optuna_aes.pruners import FrontPruner


def study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def train(study: optuna.Study, pruner: FrontPruner, curve: list[float], cost: float) -> str:
    """One training; what became of it."""
    trial = study.ask()
    for step, value in enumerate(curve):
        pruner.report(trial, value, step, cost=cost)
        if pruner.should_prune(trial):
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return f"pruned at {step}"
    study.tell(trial, [max(curve), cost])
    return "finished"


def test_a_training_ends_when_a_cheaper_one_was_better_at_the_same_step() -> None:
    front, pruner = study(), FrontPruner(warmup_steps=1, startup_trials=1)
    assert train(front, pruner, [0.6, 0.7, 0.8], cost=10) == "finished"
    assert train(front, pruner, [0.5, 0.6, 0.9], cost=20) == "pruned at 1"
    assert train(front, pruner, [0.6, 0.7, 0.9], cost=20) == "finished"  # equal is not left behind
    assert (
        train(front, pruner, [0.1, 0.1, 0.1], cost=9) == "finished"
    )  # the cheapest is on the front whatever it scores
    assert train(front, pruner, [0.5, 0.75, 0.7, 0.7], cost=20) == "pruned at 2"


def test_noise_warm_up_and_first_trials_are_waited_for() -> None:
    front = study()
    pruner = FrontPruner(warmup_steps=2, startup_trials=2, margin=0.05)
    assert train(front, pruner, [0.6, 0.7, 0.8], cost=10) == "finished"
    assert train(front, pruner, [0.1, 0.1, 0.1], cost=10) == "finished"
    assert train(front, pruner, [0.1, 0.66, 0.76], cost=10) == "finished"
    assert train(front, pruner, [0.1, 0.1, 0.7], cost=10) == "pruned at 2"


def test_minimised_scores_are_compared_the_other_way_round() -> None:
    front, pruner = optuna.create_study(directions=["minimize", "minimize"]), FrontPruner(startup_trials=1)
    assert train(front, pruner, [0.5, 0.4], cost=10) == "finished"
    assert train(front, pruner, [0.5, 0.3], cost=10) == "finished"
    assert train(front, pruner, [0.5, 0.45], cost=10) == "pruned at 1"


def test_a_step_that_was_reported_before_a_resume_keeps_its_value() -> None:
    front, pruner = study(), FrontPruner(startup_trials=1)
    trial = front.ask()
    for value in (0.5, 0.9):
        pruner.report(trial, value, 0, cost=1)
    assert trial.user_attrs["aes:curve"] == {"cost": 1.0, "values": {"0": 0.5}}
    assert not pruner.should_prune(trial)


def test_trials_that_report_nothing_are_left_alone() -> None:
    front = study()
    assert not FrontPruner().should_prune(front.ask())


@pytest.mark.parametrize("name", ["warmup_steps", "startup_trials", "margin"])
def test_options_out_of_range(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}=-1"):
        FrontPruner(**{name: -1})
