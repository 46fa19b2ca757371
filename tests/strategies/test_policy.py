from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import size_game

from optuna_aes.errors import InputError
from optuna_aes.strategies.adass.critic import CriticPolicy
from optuna_aes.strategies.adass.policy import (
    Floats,
    Ints,
    PolicyOptions,
    Problem,
    draw,
    fitting,
    make_policy,
    propose,
    repair,
    softmax,
)
from optuna_aes.strategies.adass.reinforce import ReinforcePolicy


class Fixed:
    """A policy that never learns."""

    def __init__(self, probabilities: Floats) -> None:
        self.table = probabilities

    def fold(self, choices: Ints, values: Floats, level: int) -> None:
        raise AssertionError("proposing does not fold")

    def probabilities(self, level: int) -> Floats:
        return self.table

    def moves(self, level: int, rng: np.random.Generator) -> Ints:
        return np.zeros((0, len(self.table)), dtype=np.int64)


def uniform(problem: Problem) -> Fixed:
    blocks, candidates = problem.params.shape
    return Fixed(np.full((blocks, candidates), 1 / candidates))


def sharp(problem: Problem, at: int) -> Fixed:
    return Fixed(np.eye(problem.params.shape[1])[np.full(len(problem.params), at)])


def every_choice(problem: Problem) -> Ints:
    blocks, candidates = problem.params.shape
    return np.array(list(itertools.product(range(candidates), repeat=blocks)), dtype=np.int64)


def random_problem(seed: int) -> Problem:
    """1 to 30 blocks of 1 to 10**9 rows; 2 to 7 candidates with and without 0; a budget from the smallest possible up."""
    rng = np.random.default_rng(seed)
    rows = np.floor(10 ** rng.uniform(0, 9, rng.integers(1, 31))).astype(np.int64)
    sizes = np.sort(rng.choice(np.arange(0, 65), rng.integers(2, 8), replace=False))
    params = rows[:, None] * sizes
    low, high = max(1, int(params[:, 0].sum())), int(params[:, -1].sum())
    shares = (0.0, rng.random() ** 4, rng.random())
    return Problem(params, tuple(low + int((high - low) * share) for share in shares))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"estimator": "sarsa"}, "estimator='sarsa' is not known: give one of critic, group, ema, random"),
        ({"penalty": "l1"}, "penalty='l1'"),
        ({"levels": ()}, r"levels=\(\)"),
        ({"levels": (0.5, 0.0)}, "levels"),
        ({"levels": (1.1,)}, "levels"),
        ({"group": 0}, "group=0"),
        ({"horizon": 0}, "horizon=0"),
        ({"entropy": -0.1}, "entropy=-0.1"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"price": -1.0}, "price"),
        ({"price_lr": -1.0}, "price_lr"),
    ],
)
def test_options_out_of_range_are_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        PolicyOptions(**given)


def test_groups_take_turns_among_the_levels() -> None:
    options = PolicyOptions(group=2, levels=(1.0, 0.5, 0.2))
    assert [options.level_of(n) for n in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("estimator", "kind"), [("critic", CriticPolicy), ("group", ReinforcePolicy), ("ema", ReinforcePolicy)]
)
def test_the_options_name_the_policy(estimator: str, kind: type) -> None:
    assert isinstance(make_policy(random_problem(0), PolicyOptions(estimator=estimator)), kind)


def test_softmax_bears_any_logits() -> None:
    np.testing.assert_allclose(
        softmax(np.array([[1e9, 1e9, -1e9], [0.0, np.log(3.0), -np.inf]])), [[0.5, 0.5, 0], [0.25, 0.75, 0]]
    )


def test_draws_have_the_probabilities_of_every_block() -> None:
    probabilities = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.9, 0.0, 0.1]])
    drawn = draw(probabilities, 40_000, np.random.default_rng(0))
    shares = np.stack([(drawn == k).mean(0) for k in range(3)], axis=1)
    np.testing.assert_allclose(shares, probabilities, atol=0.01)
    assert np.corrcoef(drawn[:, 0], drawn[:, 2])[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("seed", range(25))
def test_proposals_are_new_and_inside_the_budget(seed: int) -> None:
    problem = random_problem(seed)
    candidates = problem.params.shape[1]
    for level, policy in itertools.product(range(3), [uniform(problem), sharp(problem, candidates - 1)]):
        seen: set[bytes] = set()
        for group in range(3):
            rng = np.random.default_rng((seed, group))
            rows = propose(policy, problem, level=level, count=12, seen=seen, rng=rng)
            assert rows.shape == (12, len(problem.params))
            assert rows.dtype == np.int64
            assert (problem.used(rows) <= problem.budgets[level]).all()
            keys = [row.tobytes() for row in rows]
            fresh = set(keys) - seen
            assert len(fresh) == 12 or _feasible_choices(problem, level) <= len(seen | fresh)
            seen |= fresh


def _feasible_choices(problem: Problem, level: int, limit: int = 200) -> int:
    """How many choices fit, counted block by block up to a limit."""
    budget = problem.budgets[level]
    least = problem.params.min(1)
    prefixes = np.zeros(1, dtype=np.int64)
    for block, costs in enumerate(problem.params):
        sums = (prefixes[:, None] + costs).reshape(-1)
        prefixes = np.sort(sums[sums + least[block + 1 :].sum() <= budget])[:limit]
    return len(prefixes)


@pytest.mark.parametrize("sharpness", [0.0, 1.0])
@pytest.mark.parametrize("fraction", [0.02, 0.2, 1.0])
def test_nothing_repeats_until_the_space_is_exhausted(fraction: float, sharpness: float) -> None:
    problem = size_game(3, blocks=4, fraction=fraction).problem
    everything = every_choice(problem)
    feasible = {row.tobytes() for row in everything[problem.used(everything) <= problem.budgets[0]]}
    table = sharpness * sharp(problem, 0).table + (1 - sharpness) * uniform(problem).table
    seen: set[bytes] = set()
    for group in range(len(feasible) // 12):
        rng = np.random.default_rng(group)
        seen |= {r.tobytes() for r in propose(Fixed(table), problem, level=0, count=12, seen=seen, rng=rng)}
        assert len(seen) == 12 * (group + 1)
    rows = propose(Fixed(table), problem, level=0, count=12, seen=seen, rng=np.random.default_rng(0))
    assert seen | {r.tobytes() for r in rows} == feasible
    again = propose(Fixed(table), problem, level=0, count=12, seen=feasible, rng=np.random.default_rng(0))
    assert {r.tobytes() for r in again} <= feasible


def test_a_budget_that_few_uniform_draws_fit_still_gives_a_whole_group_of_different_sizes() -> None:
    """Some of 768 draws fit, fewer than a group."""
    params = np.arange(100, 110)[:, None] * np.array([0, 1, 2, 4, 8, 16])
    problem = Problem(params, (int(0.1 * params[:, -1].sum()),))
    rng = np.random.default_rng(0)
    drawn = draw(uniform(problem).table, 768, rng)
    assert 0 < (problem.used(drawn) <= problem.budgets[0]).sum() < 12
    rows = propose(uniform(problem), problem, level=0, count=12, seen=set(), rng=np.random.default_rng(0))
    assert len({r.tobytes() for r in rows}) == 12


@pytest.mark.parametrize("rows", [[1], [10**9], [1, 10**9]])
@pytest.mark.parametrize("first", [0, 2])
def test_tiny_spaces_end(rows: list[int], first: int) -> None:
    params = np.array(rows)[:, None] * np.array([first, 3])
    problem = Problem(params, (max(1, int(params[:, 0].sum())),))
    (expected,) = {r.tobytes() for r in every_choice(problem) if problem.used(r[None])[0] <= problem.budgets[0]}
    for seen in (set(), {expected}):
        drawn = propose(sharp(problem, 1), problem, level=0, count=5, seen=seen, rng=np.random.default_rng(0))
        assert [r.tobytes() for r in drawn] == [expected] * 5


def test_a_thousand_blocks_and_one_choice_that_fits() -> None:
    params = np.full((1000, 1), 7) * np.array([1, 2])
    problem = Problem(params, (7000,))
    rows = propose(uniform(problem), problem, level=0, count=3, seen=set(), rng=np.random.default_rng(0))
    assert not rows.any()


def test_the_generator_decides_and_what_was_seen_is_left_alone() -> None:
    problem, seen = size_game(0).problem, {b"x"}
    a, b, c = (
        propose(uniform(problem), problem, level=0, count=6, seen=seen, rng=np.random.default_rng(s)) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    assert seen == {b"x"}


def test_repair_lowers_sizes_until_they_fit_and_large_tables_first() -> None:
    problem = Problem(np.array([[0, 1, 2], [0, 1000, 2000]]), (1000,))
    choices = np.tile(np.array([[2, 2], [1, 1], [1, 0]]), (200, 1))
    mended = repair(choices, problem, 0, np.random.default_rng(0))
    assert (problem.used(mended) <= 1000).all()
    assert choices[0].tolist() == [2, 2]  # the caller's own are left alone
    assert (mended[0::3] == [2, 0]).all(1).mean() > 0.95
    assert (mended[1::3] == [1, 0]).all(1).mean() > 0.95
    assert (mended[2::3] == [1, 0]).all()


def test_only_when_too_few_fit_are_the_others_repaired() -> None:
    problem = Problem(np.array([[1, 2, 3]]), (2,))
    choices = np.array([[2], [0], [2], [1]])
    rng = np.random.default_rng(0)
    assert fitting(choices, problem, 0, 2, rng).tolist() == [[0], [1]]
    assert fitting(choices, problem, 0, 3, rng).tolist() == [[0], [1], [1], [1]]
