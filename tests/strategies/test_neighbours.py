from __future__ import annotations

import itertools

import numpy as np
import pytest

from optuna_aes.strategies.adass.critic import CriticPolicy
from optuna_aes.strategies.adass.neighbours import Elites, uniform
from optuna_aes.strategies.adass.policy import PolicyOptions, Problem, propose

PROBLEM = Problem(np.array([[0, 10, 20], [0, 10, 20], [0, 1, 2]]), (25, 12))


def elites(*choices: tuple[int, ...], keep: int = 4) -> Elites:
    found = Elites(PROBLEM, keep=keep)
    found.fold(np.array(choices), np.linspace(1, 0, len(choices)))
    return found


def test_the_neighbours_are_all_single_moves_and_exchanges_inside_the_budget() -> None:
    values = np.array([[0, 2, 3], [0, 1, 1.5], [0, 0.1, 0.2]])
    start = (2, 0, 1)
    found = elites(start).moves(values, 0)
    wanted = set()
    for choice in itertools.product(range(3), repeat=3):
        changed = [b for b in range(3) if choice[b] != start[b]]
        used = PROBLEM.used(np.array([choice]))[0]
        rises = sum(choice[b] > start[b] for b in changed)
        if used <= 25 and (len(changed) == 1 or (len(changed) == 2 and rises == 1)):
            wanted.add(choice)
    assert {tuple(row) for row in found.tolist()} == wanted
    gains = [values[np.arange(3), row].sum() for row in found]
    assert gains == sorted(gains, reverse=True)


def test_every_level_keeps_its_own_best_whatever_the_order_of_folding() -> None:
    choices = np.array([(2, 0, 2), (1, 0, 2), (0, 1, 0), (2, 2, 2), (0, 0, 1)])
    scores = np.array([0.9, 0.8, 0.7, 1.0, 0.2])
    whole, parts = Elites(PROBLEM, keep=2), Elites(PROBLEM, keep=2)
    whole.fold(choices, scores)
    for at in (3, 0, 4, 1, 2):
        parts.fold(choices[at : at + 1], scores[at : at + 1])
    for found in (whole, parts):
        np.testing.assert_array_equal(found.choices[0], choices[[0, 1]])  # (2, 2, 2) is over every budget
        np.testing.assert_array_equal(found.choices[1], choices[[1, 2]])


def test_without_a_choice_inside_the_budget_there_are_no_neighbours() -> None:
    assert len(Elites(PROBLEM).moves(np.zeros((3, 3)), 0)) == 0
    assert len(elites((2, 2, 2)).moves(np.zeros((3, 3)), 0)) == 0


def test_a_space_of_many_blocks_has_a_bounded_number_of_exchanges() -> None:
    problem = Problem(np.tile([0, 1, 2, 4], (2000, 1)), (4000,))
    found = Elites(problem, keep=1)
    found.fold(np.ones((1, 2000), dtype=np.int64), np.ones(1))
    rows = found.moves(np.random.default_rng(0).random((2000, 4)), 0)
    assert len(rows) <= 3 * 2000 + Elites.MOVES**2
    assert (problem.used(rows) <= 4000).all()


@pytest.mark.parametrize("group", [1, 12])
def test_a_critic_begins_with_uniform_sizes_and_ends_around_the_best(group: int) -> None:
    options = PolicyOptions(levels=(1.0,), horizon=24, group=group)
    problem = Problem(PROBLEM.params, (25,))
    policy, rng = CriticPolicy(problem, options), np.random.default_rng(0)
    first = propose(policy, problem, level=0, count=group, seen=set(), rng=rng)
    begun = uniform(problem, 0)[: group // 2]
    assert first[: len(begun)].tolist() == begun.tolist()
    for finished in (6, 12):
        policy.fold(rng.integers(3, size=(6, 3)), rng.random(6), 0)
        assert (len(policy.moves(0, rng)) > 0) == (finished >= 12)
    assert len(propose(policy, problem, level=0, count=group, seen=set(), rng=rng)) == group


def test_uniform_sizes_are_filled_up_with_the_smallest_tables_first() -> None:
    problem = Problem(np.array([[0, 10, 20], [0, 1, 2], [0, 3, 6]]), (14, 17, 18, 28, 13, 0))
    found = [uniform(problem, level).tolist() for level in range(6)]
    ones, zeros, twos = [1, 1, 1], [0, 0, 0], [2, 2, 2]
    assert found[0] == [ones, ones, zeros]  # 14: nothing to spare; what stands twice is tried once
    assert found[1] == [[1, 2, 1], ones, zeros]
    assert found[2] == [[1, 2, 2], ones, zeros]
    assert found[3] == [twos, ones, zeros]
    assert found[4] == [[0, 1, 1], zeros]
    assert found[5] == [zeros, zeros]
    assert uniform(Problem(np.array([[4, 8]]), (3,)), 0).shape == (0, 1)


def test_two_blocks_that_stand_in_for_each_other_are_told_apart_by_scores() -> None:
    # An additive critic gives both a and b half of what only one of them is worth; c pays for itself.
    problem = Problem(np.tile([0, 10], (3, 1)), (20,))
    score = {c: max(c[0], c[1]) + 0.3 * c[2] for c in itertools.product(range(2), repeat=3)}
    tried = [(1, 1, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
    found = Elites(problem)
    found.fold(np.array(tried), np.array([score[c] for c in tried], dtype=float))
    rows = [tuple(row) for row in found.moves(np.array([[0, 0.5], [0, 0.5], [0, 0.3]]), 0).tolist()]
    assert next(row for row in rows if row not in tried) in {(1, 0, 1), (0, 1, 1)}
