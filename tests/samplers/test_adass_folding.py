"""The policy is a function of the finished trials, whatever their order, and folds each once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from adass_game import BUDGET, SPACE, a_search, finished, make, new_study, objective, score, sizes_of
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState

from optuna_aes.budget import MemoryBudget
from optuna_aes.samplers import adass
from optuna_aes.space import EmbeddingSpace


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Calls of a function of the sampler's module."""
    calls: list[str] = []
    original = getattr(adass, name)
    monkeypatch.setattr(adass, name, lambda *a, **k: calls.append(name) or original(*a, **k))
    return calls


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
