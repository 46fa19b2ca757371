from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from optuna_aes import EmbeddingSpace, MemoryBudget
from optuna_aes.errors import InputError
from optuna_aes.samplers import FrontPathSampler
from optuna_aes.space import Sizes

SPACE = EmbeddingSpace({"user": 100, "item": 300}, candidates=range(9))
BUDGET = MemoryBudget(SPACE, fraction=0.5)
PATH = [{"user": d, "item": d} for d in range(9)]


class TestOptunasOwnSuites(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: FrontPathSampler(SPACE, BUDGET, PATH, seed=0)


def study_of(sampler: BaseSampler) -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)


def objective(trial: optuna.Trial) -> tuple[float, float]:
    sizes = SPACE.suggest(trial)
    BUDGET.check(trial, sizes)
    return sizes["user"] ** 0.5, float(SPACE.cost(sizes).params)


def test_a_study_stops_when_every_point_inside_the_budget_has_had_its_trial() -> None:
    study = study_of(FrontPathSampler(SPACE, BUDGET, PATH))
    study.optimize(objective, n_trials=100)
    tried = [SPACE.from_params(t.params)["user"] for t in study.trials]
    assert sorted(tried) == [0, 1, 2, 3, 4]  # 8 is full size, 4 is half of it
    assert tried[:2] == [4, 0]  # the ends of the front come first


def test_groups_and_single_trials_look_at_the_same_points() -> None:
    sampler = FrontPathSampler(SPACE, BUDGET, PATH)
    study = study_of(sampler)
    found: list[Sizes] = []
    while group := sampler.propose(study, 2):
        found += group
        for sizes in group:
            cost = float(SPACE.cost(sizes).params)
            study.add_trial(
                optuna.create_trial(
                    values=[sizes["user"] ** 0.5, cost],
                    params=SPACE.to_params(sizes),
                    distributions=dict(SPACE.distributions()),
                )
            )
    assert sorted(sizes["user"] for sizes in found) == [0, 1, 2, 3, 4]


def test_a_running_trial_is_not_proposed_to_another_worker() -> None:
    study = study_of(FrontPathSampler(SPACE, BUDGET, PATH))
    asked = [SPACE.suggest(study.ask())["user"] for _ in range(5)]
    assert sorted(asked) == [0, 1, 2, 3, 4]


def test_asked_beyond_its_end_it_repeats_the_largest_point() -> None:
    study = study_of(FrontPathSampler(SPACE, BUDGET, PATH[:2]))
    assert [SPACE.suggest(study.ask())["user"] for _ in range(3)] == [1, 0, 1]


def test_a_path_without_a_point_inside_the_budget_is_refused() -> None:
    with pytest.raises(InputError, match=r"no point inside the budget of 1,600 parameters: its smallest has 3,200"):
        FrontPathSampler(SPACE, BUDGET, PATH[8:])
