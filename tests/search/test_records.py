from __future__ import annotations

import optuna
from optuna.trial import TrialState

from optuna_aes import EmbeddingSpace, MemoryBudget
from optuna_aes.search.records import (
    CHOSEN,
    SEED,
    Picks,
    Scored,
    decision_of,
    has_sizes,
    job_key,
    jobs,
    key_of,
    recorded_picks,
    scored,
)
from optuna_aes.search.settings import Plan
from optuna_aes.storage import WorkQueue

SPACE = EmbeddingSpace({"a": 10, "b": 5}, candidates=(0, 1, 4))
BUDGET = MemoryBudget(SPACE, params=30)
PICKS = [Scored(3, {"a": 1, "b": 4}, 0.7, 30), Scored(8, {"a": 1, "b": 1}, 0.6, 15)]


def study_of(*trials: optuna.trial.FrozenTrial) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials(trials)
    return study


def of(a: int, b: int, auc: float, state: TrialState = TrialState.COMPLETE) -> optuna.trial.FrozenTrial:
    sizes = {"a": a, "b": b}
    return optuna.create_trial(
        state=state,
        values=[auc, float(SPACE.cost(sizes).params)] if state == TrialState.COMPLETE else None,
        params=SPACE.to_params(sizes),
        distributions=dict(SPACE.distributions()),
    )


def test_scored_are_the_finished_trials_inside_the_budget() -> None:
    study = study_of(of(1, 1, 0.6), of(4, 4, 0.9), of(1, 4, 0.7, TrialState.PRUNED), of(1, 4, 0.7))
    assert scored(study, BUDGET) == [Scored(0, {"a": 1, "b": 1}, 0.6, 15), Scored(3, {"a": 1, "b": 4}, 0.7, 30)]


def test_a_key_names_sizes_and_seed_whatever_their_order() -> None:
    assert job_key({"a": 1, "b": 4}, 0) == job_key({"b": 4, "a": 1}, 0)
    keys = {job_key({"a": a, "b": b}, seed) for a in (0, 1, 4) for b in (0, 1, 4) for seed in (0, 1)}
    assert len(keys) == 18
    # Stored searches are found by it: it must not change from release to release.
    assert job_key({"a": 1, "b": 4}, 7) == "af05d8f2d3584c56/7"


def test_a_waiting_trial_has_a_key_like_a_finished_one() -> None:
    study = study_of()
    study.enqueue_trial(SPACE.to_params({"a": 1, "b": 4}), user_attrs={SEED: 2})
    study.enqueue_trial(SPACE.to_params({"a": 1, "b": 4}))
    waiting, foreign = study.trials
    assert has_sizes(waiting)
    assert not has_sizes(foreign)
    assert key_of(waiting, SPACE) == job_key({"a": 1, "b": 4}, 2)


def test_jobs_go_seed_by_seed_and_a_pick_is_its_own_reference() -> None:
    found = jobs(PICKS, Plan(retrain=2, retrain_seeds=2), SPACE, seed=5)
    sizes = [tuple(j.sizes.values()) for j in found]
    assert sizes == [(1, 4), (1, 1), (2, 2), (4, 4)] * 2
    assert [j.seed for j in found] == [5] * 4 + [6] * 4
    assert [j.search_trial for j in found] == [3, 8, None, None] * 2
    assert [j.auc_inherited for j in found[:3]] == [0.7, 0.6, None]
    assert len({j.key for j in found}) == 8


def test_jobs_without_references_or_picks() -> None:
    assert len(jobs(PICKS, Plan(reference=False), SPACE, seed=0)) == 2
    assert [j.search_trial for j in jobs([], Plan(), SPACE, seed=0)] == [None] * 3
    assert jobs([], Plan(reference=False), SPACE, seed=0) == []


def test_picks_are_kept_for_the_trials_they_were_made_of() -> None:
    study, trials = study_of(), [*PICKS, Scored(9, {"a": 0, "b": 1}, 0.5, 5)]
    plan, picks = Plan(retrain=2), Picks(tuple(PICKS[::-1]), {70: 0, 30: 1})
    assert recorded_picks(study, trials, plan) is None
    decision = decision_of(study, trials, plan, picks)
    assert WorkQueue(study).add([], decision=decision)
    assert not WorkQueue(study).add([], decision=decision), "decided already"
    assert recorded_picks(study, trials, plan) == picks
    assert recorded_picks(study, trials, Plan(retrain=3)) is None
    assert recorded_picks(study, trials, Plan(picks_at=(1.0, 0.5))) is None
    assert recorded_picks(study, [*trials, Scored(10, {"a": 0, "b": 4}, 0.5, 20)], plan) is None
    del (old := dict(study.user_attrs[CHOSEN]))["levels"]  # as it was written before levels were
    study.set_user_attr(CHOSEN, old)
    assert recorded_picks(study, trials, plan) == Picks(picks.found, {})
    fixed = Plan(picks_at=(1.0, 0.5))
    WorkQueue(study).add([], decision=decision_of(study, trials, fixed, picks))
    assert recorded_picks(study, trials, fixed) == picks
    assert recorded_picks(study, trials, plan) is None
