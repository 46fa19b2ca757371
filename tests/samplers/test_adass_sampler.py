from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from helpers import size_game
from optuna.pruners import HyperbandPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_aes.budget import CONSTRAINT, MemoryBudget
from optuna_aes.pruners import BudgetPruner
from optuna_aes.samplers import AdaSSSampler, adass
from optuna_aes.space import EmbeddingSpace, Sizes
from optuna_aes.strategies.adass.policy import PolicyOptions

SPACE = EmbeddingSpace({"user": 957, "item": 4082, "hour": 24, "shop": 300}, candidates=(0, 1, 2, 4, 8))
BUDGET = MemoryBudget(SPACE, fraction=0.3)
OPTIONS = PolicyOptions(group=4, horizon=60, levels=(1.0, 0.5))


class TestOptunasOwnSuites(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: AdaSSSampler(SPACE, BUDGET, seed=0)


def make(*, seed: int | None = 0, budget: MemoryBudget = BUDGET, **options: Any) -> AdaSSSampler:
    chosen = PolicyOptions(**{**vars(OPTIONS), **options})
    return AdaSSSampler(budget.space, budget, options=chosen, seed=seed)


def score(sizes: Sizes) -> float:
    """Worth of sizes: more is better, with diminishing returns; the item most."""
    worth = {"user": 0.02, "item": 0.03, "hour": 0.01, "shop": 0.005}
    return 0.7 + sum(worth[name] * (1 - 0.5**size) for name, size in sizes.items())


def objective(trial: optuna.Trial) -> tuple[float, float]:
    sizes = SPACE.suggest(trial)
    BUDGET.check(trial, sizes)
    return score(sizes), SPACE.cost(sizes).params


def new_study(sampler: BaseSampler, **given: Any) -> optuna.Study:
    return optuna.create_study(**{"directions": ["maximize", "minimize"], "sampler": sampler, **given})


def sizes_of(study: optuna.Study) -> list[Sizes]:
    return [SPACE.from_params(t.params) for t in study.trials]


def finished(
    sizes: Sizes,
    *,
    state: TrialState = TrialState.COMPLETE,
    values: Sequence[float] | None = None,
    space: EmbeddingSpace = SPACE,
) -> FrozenTrial:
    if values is None and state == TrialState.COMPLETE:
        values = (score(sizes), space.cost(sizes).params)
    return create_trial(
        state=state, values=values, params=space.to_params(sizes), distributions=dict(space.distributions())
    )


def a_search(trials: int, *, seed: int = 0) -> list[FrozenTrial]:
    study = new_study(make(seed=seed))
    study.optimize(objective, trials)
    return study.trials


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Calls of a function of the sampler's module."""
    calls: list[str] = []
    original = getattr(adass, name)
    monkeypatch.setattr(adass, name, lambda *a, **k: calls.append(name) or original(*a, **k))
    return calls


# -- the policy is a function of the finished trials --------------------------------------------------------------------


@pytest.mark.parametrize("estimator", ["critic", "group", "ema"])
@pytest.mark.parametrize("shuffle", range(4))
def test_the_order_of_arrival_does_not_matter(estimator: str, shuffle: int) -> None:
    """The same trials, finished in another order and seen piece by piece, give the same proposals to the last bit."""
    source = new_study(make(estimator=estimator))
    source.optimize(objective, 24)
    expected = make(estimator=estimator).propose(source, 24)
    assert make(estimator=estimator).propose(new_study(make()), 24) != expected

    sampler = make(estimator=estimator)
    study = new_study(sampler)
    running = []
    for trial in source.trials:
        study.enqueue_trial(trial.params)
        running.append(study.ask(SPACE.distributions()))
    for at in np.random.default_rng(shuffle).permutation(24):
        study.tell(running[at], source.trials[at].values)
        sampler.propose(study, 24)  # folds what there is
    assert sampler.propose(study, 24) == expected


@pytest.mark.parametrize("estimator", ["critic", "group", "ema"])
def test_folding_as_trials_come_in_equals_folding_them_all_at_once(estimator: str) -> None:
    sampler = make(estimator=estimator)
    study = new_study(sampler)
    for _ in range(9):
        study.optimize(objective, 4)
        number = len(study.trials)
        assert sampler.propose(study, number) == make(estimator=estimator).propose(study, number)


@pytest.mark.parametrize("restart", [5, 8])
def test_a_restart_in_the_middle_with_a_new_sampler_changes_nothing(tmp_path: Path, restart: int) -> None:
    url = f"sqlite:///{tmp_path}/aes.db"
    first = new_study(make(), storage=url, study_name="s")
    first.optimize(objective, restart)
    second = optuna.load_study(storage=url, study_name="s", sampler=make())
    second.optimize(objective, 12 - restart)
    assert [(t.params, t.values) for t in second.trials] == [(t.params, t.values) for t in a_search(12)]


def test_several_samplers_on_one_study_propose_what_one_would() -> None:
    samplers = [make() for _ in range(3)]
    study = new_study(samplers[0])
    for at in range(24):
        study.sampler = samplers[at % 3]
        study.optimize(objective, 1)
    assert sizes_of(study) == [SPACE.from_params(t.params) for t in a_search(24)]


def test_threads_share_one_sampler() -> None:
    study = new_study(make(group=6))
    study.optimize(objective, 60, n_jobs=4)
    keys = [tuple(s.values()) for s in sizes_of(study)]
    assert {t.state for t in study.trials} == {TrialState.COMPLETE}
    assert all(BUDGET.fits(s) for s in sizes_of(study))
    assert len(set(keys)) > 50  # two threads in different groups may still draw the same sizes
    assert make().propose(study, 60) == make().propose(study, 60)


def test_trials_of_the_group_that_is_proposed_and_later_ones_do_not_matter() -> None:
    trials = a_search(16)
    short, long = new_study(make()), new_study(make())
    short.add_trials(trials[:8])
    long.add_trials([*trials[:10], *[finished(SPACE.uniform(8), values=(9.9, 0.0))] * 6])
    assert make().propose(short, 8) == make().propose(long, 8)
    assert make().propose(short, 8)[2:] == make().propose(long, 10)


def test_trials_without_a_score_teach_nothing_but_are_not_proposed_again() -> None:
    sampler = make(levels=(1.0,))
    plain, mixed = new_study(sampler), new_study(sampler)
    trials = a_search(7)
    odd = {"user": 1, "item": 1, "hour": 0, "shop": 1}
    plain.add_trials([*trials, finished(odd)])
    for state in (TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING):
        mixed = new_study(sampler)
        mixed.add_trials([*trials, finished(odd, state=state)])
        sampler.propose(mixed, 8)
        fold = sampler._folds[mixed._storage][mixed._study_id]
        assert fold.folded == list(range(7))
        assert len(fold.seen) == 8
        assert fold.policy.finished == 7


def test_sizes_that_always_fail_are_not_proposed_for_ever() -> None:
    """The sharpest policy of a tiny space wants the best sizes, which crash."""
    space = EmbeddingSpace({"a": 10, "b": 10}, (0, 1, 2))
    budget = MemoryBudget(space, fraction=1.0)
    study = new_study(make(budget=budget, levels=(1.0,), horizon=3, group=3), direction="maximize", directions=None)

    def crashes(trial: optuna.Trial) -> float:
        sizes = space.suggest(trial)
        if sizes == {"a": 2, "b": 2}:
            raise RuntimeError("out of memory")
        return sizes["a"] + sizes["b"]

    study.optimize(crashes, 9, catch=RuntimeError)
    assert len({tuple(t.params.values()) for t in study.trials}) == 9


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_infinite_scores_are_left_out(value: float) -> None:
    study = new_study(make())
    study.add_trials([*a_search(7), finished(SPACE.uniform(1), values=(value, 1.0))])
    with np.errstate(all="raise", under="ignore"):
        assert len(make().propose(study, 8)) == 4
    other = new_study(make())
    other.add_trials([*a_search(7), finished(SPACE.uniform(1), state=TrialState.PRUNED)])
    assert make().propose(study, 8) == make().propose(other, 8)


# -- folding costs little -----------------------------------------------------------------------------------------------


def test_a_sequential_run_folds_every_group_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resets, draws = counted(monkeypatch, "make_policy"), counted(monkeypatch, "propose")
    study = new_study(make())
    study.optimize(objective, 40)
    assert len(resets) == 1
    assert len(draws) == 10  # once a group, not once a trial


def test_recording_in_bulk_folds_every_group_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resets = counted(monkeypatch, "make_policy")
    sampler = make()
    study = new_study(sampler)
    for _ in range(10):
        study.add_trials([finished(s) for s in sampler.propose(study, len(study.trials))])
    assert len(resets) == 1
    assert sampler.propose(study, 40) == make().propose(study, 40)


def test_a_group_that_was_folded_in_part_is_folded_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    resets = counted(monkeypatch, "make_policy")
    sampler = make()
    study = new_study(sampler)
    study.optimize(objective, 6)
    late = [study.ask(SPACE.distributions()) for _ in range(2)]
    sampler.propose(study, 8)
    assert len(resets) == 1
    for trial in late:
        study.tell(trial, (score(SPACE.from_params(trial.params)), 1.0))
    after = sampler.propose(study, 8)
    assert len(resets) == 2
    assert after == make().propose(study, 8)


def test_a_failed_member_of_a_group_does_not_make_later_groups_fold_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    resets = counted(monkeypatch, "make_policy")
    study = new_study(make())

    def sometimes(trial: optuna.Trial) -> tuple[float, float]:
        values = objective(trial)
        if trial.number % 4 == 3:
            raise RuntimeError
        return values

    study.optimize(sometimes, 24, catch=RuntimeError)
    assert len(resets) == 1


def test_hyperband_which_wraps_the_study_for_every_trial_does_not_fold_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    resets = counted(monkeypatch, "make_policy")
    study = optuna.create_study(sampler=make(), pruner=HyperbandPruner(min_resource=1, max_resource=9))
    study.optimize(lambda trial: objective(trial)[0], 12)
    assert len(resets) == 1
    assert len({tuple(s.values()) for s in sizes_of(study)}) == 12


def test_one_sampler_serves_two_studies_apart() -> None:
    sampler = make()
    one, two = new_study(sampler), new_study(sampler)
    one.optimize(objective, 12)
    two.optimize(objective, 12)
    assert sizes_of(one) == sizes_of(two)


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
