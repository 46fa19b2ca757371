from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from adass_game import BUDGET, OPTIONS, SPACE, a_search, finished, make, new_study, objective, sizes_of
from helpers import size_game
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import TrialState

from optuna_aes.budget import CONSTRAINT, MemoryBudget
from optuna_aes.pruners import BudgetPruner
from optuna_aes.samplers import AdaSSSampler
from optuna_aes.space import EmbeddingSpace


class TestOptunasOwnSuites(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: AdaSSSampler(SPACE, BUDGET, seed=0)


# -- proposals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_proposals_fit_their_level_and_are_new(seed: int) -> None:
    rng = np.random.default_rng(seed)
    space = EmbeddingSpace(
        {f"f{i}": int(10 ** rng.uniform(0, 7)) for i in range(rng.integers(3, 12))},
        [(0, 1, 2, 4, 8, 16), (1, 3, 9)][seed % 2],
    )
    # Where the smallest size is 1 of 9, the level of a fifth must leave something to choose.
    budget = MemoryBudget(space, fraction=float(rng.uniform(*[(0.02, 0.6), (0.8, 1.0)][seed % 2])))
    sampler = make(budget=budget, seed=seed, levels=(1.0, 0.6, 0.2))
    study = new_study(sampler)
    for number in range(0, 24, 4):
        proposed = sampler.propose(study, number)
        share = (1.0, 0.6, 0.2)[number // 4 % 3]
        assert all(budget.level(share).fits(s) for s in proposed)
        gains = [sum(np.log1p(v) for v in s.values()) for s in proposed]
        study.add_trials([finished(s, values=(g, 1.0), space=space) for s, g in zip(proposed, gains, strict=True)])
    assert len({tuple(t.params.values()) for t in study.trials}) == 24


@pytest.mark.parametrize(
    ("space", "feasible"),
    [
        (EmbeddingSpace({"a": 10}, (0, 4)), 2),
        (EmbeddingSpace({"a": 10, "b": 1}, (1, 2)), 4),
        (EmbeddingSpace({"a": 10**9}, (2, 16)), 2),
    ],
)
def test_a_space_smaller_than_a_group_is_searched_whole_and_then_repeats(space: EmbeddingSpace, feasible: int) -> None:
    budget = MemoryBudget(space, fraction=1.0)
    study = new_study(make(budget=budget, levels=(1.0,)), directions=None, direction="maximize")
    study.optimize(lambda trial: float(sum(space.suggest(trial).values())), 12)
    assert len({tuple(t.params.values()) for t in study.trials[:4]}) == feasible


def test_a_budget_of_the_smallest_architecture_gives_it() -> None:
    space = EmbeddingSpace({"a": 10, "b": 7}, (2, 4))
    budget = MemoryBudget(space, params=34)
    study = new_study(make(budget=budget), directions=None, direction="maximize")
    study.optimize(lambda trial: float(sum(space.suggest(trial).values())), 9)
    assert {tuple(t.params.values()) for t in study.trials} == {(2, 2)}


def test_seeds() -> None:
    runs = {seed: [SPACE.from_params(t.params) for t in a_search(12, seed=seed)] for seed in (0, 1)}
    assert runs[0] == [SPACE.from_params(t.params) for t in a_search(12, seed=0)]
    assert runs[0][:4] != runs[1][:4]
    drawn = [make(seed=None).propose(new_study(make()), 0) for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_propose_gives_the_rest_of_the_group_and_agrees_with_ask() -> None:
    sampler = make()
    study = new_study(sampler)
    study.optimize(objective, 5)
    rest = sampler.propose(study, 5)
    assert len(rest) == 3
    study.optimize(objective, 3)
    assert sizes_of(study)[5:] == rest


def test_a_pickled_sampler_goes_on() -> None:
    sampler = make()
    study = new_study(sampler)
    study.optimize(objective, 9)
    copy = pickle.loads(pickle.dumps(sampler))
    assert copy.propose(study, 9) == sampler.propose(study, 9)
    copy.reseed_rng()
    assert copy.propose(study, 12) == sampler.propose(study, 12)


# -- studies of all kinds -----------------------------------------------------------------------------------------------


def test_the_best_sizes_are_found_in_either_direction() -> None:
    game = size_game(0, blocks=4)
    space = EmbeddingSpace({f"f{i}": int(n) for i, n in enumerate(game.problem.params[:, 1])}, (0, 1, 2, 4, 8))
    budget = MemoryBudget(space, params=game.problem.budgets[0])
    for sign, direction in ((1.0, "maximize"), (-1.0, "minimize")):
        sampler = make(budget=budget, levels=(1.0,), group=8, horizon=80)
        study = optuna.create_study(direction=direction, sampler=sampler)
        study.optimize(lambda t, sign=sign: sign * float(game.score(space.to_indices(space.suggest(t))[None])[0]), 80)
        assert sign * study.best_value == pytest.approx(game.best(0))


def test_directions_mirror_each_other() -> None:
    one, other = (optuna.create_study(direction=d, sampler=make()) for d in ("maximize", "minimize"))
    one.optimize(lambda t: objective(t)[0], 24)
    other.optimize(lambda t: -objective(t)[0], 24)
    assert sizes_of(one) == sizes_of(other)


def with_lr(trial: optuna.Trial) -> tuple[float, float]:
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("backbone", ["mlp", "deepfm"])
    values = objective(trial)
    trial.suggest_int("late", 1, 100)
    return values[0] - abs(np.log10(lr) + 2) / 100, values[1]


def test_other_parameters_come_from_the_independent_sampler() -> None:
    study = new_study(make())
    study.optimize(with_lr, 20)
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    lrs = [t.params["lr"] for t in study.trials]
    assert len(set(lrs)) == 20
    assert min(lrs) < 1e-3 < 1e-2 < max(lrs)
    assert {t.params["backbone"] for t in study.trials} == {"mlp", "deepfm"}
    assert np.corrcoef(np.log(lrs), [t.params["late"] for t in study.trials])[0, 1] < 0.9


def test_a_restart_repeats_neither_sizes_nor_other_parameters(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/aes.db"
    for _ in range(3):
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=make(), storage=url, study_name="s", load_if_exists=True
        )
        study.optimize(with_lr, 3)
    assert len({t.params["lr"] for t in study.trials}) == 9
    assert len({tuple(s.values()) for s in sizes_of(study)}) == 9
    whole = new_study(make())
    whole.optimize(with_lr, 9)
    assert [t.params for t in whole.trials] == [t.params for t in study.trials]


def test_an_independent_sampler_of_the_users_is_asked_and_told() -> None:
    independent = TPESampler(seed=0, n_startup_trials=2)
    told: list[int] = []
    after = independent.after_trial
    independent.after_trial = lambda study, trial, state, values: (
        told.append(trial.number),
        after(study, trial, state, values),
    )
    study = new_study(AdaSSSampler(SPACE, BUDGET, options=OPTIONS, seed=0, independent_sampler=independent))
    study.optimize(with_lr, 6)
    assert told == list(range(6))
    assert study.trials[-1].params["lr"] > 0


def test_fixed_and_enqueued_sizes_are_learnt_from_and_not_proposed_again() -> None:
    study = new_study(make(levels=(1.0,)))
    given = [
        SPACE.uniform(1),
        {"user": 4, "item": 1, "hour": 8, "shop": 2},
        {"user": 1, "item": 2, "hour": 4, "shop": 8},
    ]
    for sizes in given:
        study.enqueue_trial(SPACE.to_params(sizes))
    study.enqueue_trial({"size:user": 1})  # the others are proposed
    study.optimize(objective, 20)
    assert sizes_of(study)[:3] == given
    assert sizes_of(study)[3]["user"] == 1
    keys = [tuple(s.values()) for s in sizes_of(study)]
    assert not set(keys[:3]) & set(keys[4:])
    fold = study.sampler._folds[study._storage][study._study_id]
    assert fold.folded == list(range(16))


def test_some_sizes_held_fixed_by_optuna() -> None:
    study = new_study(PartialFixedSampler({"size:item": 1}, make()))
    study.optimize(objective, 12)
    assert {s["item"] for s in sizes_of(study)} == {1}
    assert len({tuple(s.values()) for s in sizes_of(study)}) > 6


def test_trials_of_another_space_are_passed_over() -> None:
    study = new_study(make())
    other = EmbeddingSpace({"user": 957, "item": 4082, "hour": 24, "shop": 300}, candidates=(0, 1, 2, 4, 32))
    fewer = EmbeddingSpace({"user": 957}, candidates=SPACE.candidates)
    study.add_trial(finished(other.uniform(32), space=other, values=(0.9, 1.0)))
    study.add_trial(finished(fewer.uniform(2), space=fewer, values=(0.9, 1.0)))
    study.optimize(objective, 10)
    fold = study.sampler._folds[study._storage][study._study_id]
    assert fold.folded == list(range(2, 8))


def test_the_example_of_plain_optuna() -> None:
    """As a user writes it, with nothing else of the package."""
    space = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16))
    budget = MemoryBudget(space, fraction=0.25)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=AdaSSSampler(space, budget, seed=0), pruner=BudgetPruner(budget)
    )

    def plain(trial: optuna.Trial) -> tuple[float, int]:
        sizes = space.suggest(trial)
        budget.check(trial, sizes)
        return sizes["user"] ** 0.5 + sizes["item"] ** 0.5, space.cost(sizes).params

    study.optimize(plain, n_trials=20)
    fitting = [
        s for s in itertools.product((0, 2, 4, 8, 16), repeat=2) if budget.fits(dict(zip(space.names, s, strict=True)))
    ]
    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 20
    assert len({tuple(t.params.values()) for t in complete}) == min(20, len(fitting))
    assert all(t.constraints[CONSTRAINT] <= 0 for t in study.best_trials)
