from __future__ import annotations

import numpy as np
import pytest
from helpers import play, size_game
from threadpoolctl import threadpool_info, threadpool_limits

from optuna_aes.strategies.adass.critic import CriticPolicy
from optuna_aes.strategies.adass.policy import Floats, PolicyOptions, Problem, draw

LEVELS = (1.0, 0.5)


def uniform_draws(problem: Problem, count: int, *, seed: int = 0) -> np.ndarray:
    blocks, candidates = problem.params.shape
    return draw(np.full((blocks, candidates), 1 / candidates), count, np.random.default_rng(seed))


def fold_all(policy: CriticPolicy, choices: np.ndarray, values: Floats, *, size: int = 12) -> CriticPolicy:
    for at in range(0, len(choices), size):
        policy.fold(choices[at : at + size], values[at : at + size], at // size % len(policy.problem.budgets))
    return policy


def memory(problem: Problem, probabilities: Floats, level: int = 0) -> float:
    return float((probabilities * problem.params).sum()) / problem.budgets[level]


def test_an_additive_score_is_recovered() -> None:
    game = size_game(1, interaction=0.0, levels=LEVELS)
    choices = uniform_draws(game.problem, 240)
    values = game.score(choices)
    policy = fold_all(CriticPolicy(game.problem, PolicyOptions(levels=LEVELS)), choices, values)
    one_block_up = np.zeros((6, 5, 6), dtype=np.int64)
    for block in range(6):
        one_block_up[block, :, block] = np.arange(5)
    truth = game.score(one_block_up.reshape(-1, 6)).reshape(6, 5) - game.values[0]
    spread = truth.max()
    for level in range(2):
        value = policy.values(level)
        assert not value[:, 0].any()
        # Values come in standard deviations of the (weighted) scores: the scale is the one free number.
        scale = (truth * value).sum() / (value**2).sum()
        assert scale == pytest.approx(values.std(), rel=0.3)
        np.testing.assert_allclose(scale * value, truth, atol=0.01 * spread)


def test_noise_is_not_taken_for_value() -> None:
    """The ridge is chosen by cross-validation: scores without a signal move the policy little."""
    game = size_game(1)
    choices = uniform_draws(game.problem, 120)
    noisy = fold_all(CriticPolicy(game.problem, PolicyOptions()), choices, np.random.default_rng(1).normal(size=120))
    assert np.abs(noisy.values(0)).max() < 0.5
    real = fold_all(CriticPolicy(game.problem, PolicyOptions()), choices, game.score(choices))
    assert real.values(0).max() > 1.0


@pytest.mark.parametrize("penalty", ["hinge", "abs"])
@pytest.mark.parametrize("finished", [24, 480])
def test_the_price_meets_the_budget_in_expectation(penalty: str, finished: int) -> None:
    game = size_game(2, levels=LEVELS)
    policy = CriticPolicy(game.problem, PolicyOptions(penalty=penalty, levels=LEVELS, horizon=480))
    choices = uniform_draws(game.problem, finished)
    fold_all(policy, choices, game.score(choices))
    for level in range(2):
        probabilities = policy.probabilities(level)
        np.testing.assert_allclose(probabilities.sum(1), 1)
        assert memory(game.problem, probabilities, level) == pytest.approx(policy.FILL, abs=1e-3)


@pytest.mark.parametrize(("penalty", "least"), [("hinge", 0.0), ("abs", 0.85)])
def test_only_abs_pays_for_memory_that_is_left_unused(penalty: str, least: float) -> None:
    """A score that falls with size: hinge leaves the budget free."""
    game = size_game(2)
    policy = CriticPolicy(game.problem, PolicyOptions(penalty=penalty, levels=(1.0,), horizon=100))
    choices = uniform_draws(game.problem, 120)
    fold_all(policy, choices, -game.problem.used(choices) / game.problem.budgets[0])
    used = memory(game.problem, policy.probabilities(0))
    assert used >= least
    assert (used < 0.1) == (penalty == "hinge")


def test_the_policy_sharpens_towards_the_horizon() -> None:
    game = size_game(4)
    choices = uniform_draws(game.problem, 60)
    entropies = []
    for horizon in (10_000, 120, 75, 60):
        policy = fold_all(CriticPolicy(game.problem, PolicyOptions(horizon=horizon)), choices, game.score(choices))
        probabilities = policy.probabilities(0)
        entropies.append(-(probabilities * np.log(probabilities + 1e-300)).sum())
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] > 3 * entropies[-1]


def test_in_the_end_a_size_that_has_not_shown_its_worth_is_not_taken() -> None:
    """Two blocks of which one is worth its size; the other's scores are noise."""
    problem = Problem(np.array([[0, 100], [0, 100]]), (250,))
    choices = uniform_draws(problem, 96)
    taken = []
    for seed in range(20):
        values = choices[:, 0] + 0.3 * np.random.default_rng(seed).normal(size=96)
        policy = fold_all(CriticPolicy(problem, PolicyOptions(levels=(1.0,), horizon=96)), choices, values)
        probabilities = policy.probabilities(0)
        assert probabilities[0, 1] > 0.99
        taken.append(probabilities[1, 1] > 0.5)
    assert sum(taken) <= 6  # a coin would give 10, one standard error leaves 16 % of 20


def test_the_optimum_is_found_and_random_draws_do_not_find_it() -> None:
    options = PolicyOptions(levels=(1.0,), horizon=150, group=10)
    found = beaten = 0
    for seed in range(10):
        game = size_game(seed)
        best = play(game, CriticPolicy(game.problem, options), options, 150, seed=seed)[0]
        found += best >= game.best(0) - 1e-12
        beaten += best > play(game, None, options, 150, seed=seed)[0]
    assert found >= 9
    assert beaten >= 9


def test_one_critic_serves_all_levels() -> None:
    options = PolicyOptions(levels=(1.0, 0.6, 0.3), horizon=240)
    found = []
    for seed in range(5):
        game = size_game(seed, levels=options.levels)
        bests = play(game, CriticPolicy(game.problem, options), options, 240, seed=seed)
        found += [b >= game.best(level) - 1e-12 for level, b in enumerate(bests)]
    assert sum(found) >= 13


@pytest.mark.parametrize("offset", [0.0, 0.8, 1e6])
@pytest.mark.parametrize("scale", [0.0, 1e-7, 1.0, 1e9])
@pytest.mark.parametrize("rows", [[1, 1], [1, 10**9], [10**9, 10**9, 3]])
def test_numbers_of_any_size_give_probabilities(rows: list[int], scale: float, offset: float) -> None:
    params = np.array(rows)[:, None] * np.array([0, 1, 64])
    problem = Problem(params, (int(params[:, -1].sum()), max(1, int(params[:, -1].sum()) // 1000)))
    policy = CriticPolicy(problem, PolicyOptions(levels=LEVELS, horizon=40))
    choices = uniform_draws(problem, 48)
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        fold_all(policy, choices, offset + scale * choices[:, 0])
        for level in range(2):
            probabilities = policy.probabilities(level)
            np.testing.assert_allclose(probabilities.sum(1), 1)
            if scale == 0:
                assert not policy.values(level).any()
    if scale * 1e9 > offset:  # enough digits left to tell: the first block is worth its size, where it is cheap
        assert policy.probabilities(0)[0].argmax() == 2


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_first_trials_leave_the_policy_open(count: int) -> None:
    game = size_game(0)
    policy = CriticPolicy(game.problem, PolicyOptions(levels=(1.0,)))
    if count:
        choices = uniform_draws(game.problem, count)
        policy.fold(choices, game.score(choices), 0)
    probabilities = policy.probabilities(0)
    assert np.isfinite(probabilities).all()
    assert (probabilities > 0).all()
    if count < 2:
        np.testing.assert_allclose(probabilities, 0.2)


def test_a_budget_of_the_smallest_sizes_gives_the_smallest_sizes() -> None:
    params = np.array([[5, 10], [7, 14]])
    policy = CriticPolicy(Problem(params, (12,)), PolicyOptions(levels=(1.0,)))
    policy.fold(np.array([[0, 0], [1, 1]]), np.array([0.1, 0.9]), 0)
    np.testing.assert_allclose(policy.probabilities(0), [[1, 0], [1, 0]], atol=1e-6)


def test_its_matrices_stay_on_one_thread_and_all_else_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    game, during = size_game(1), list[int]()
    choices = uniform_draws(game.problem, 24)
    policy = fold_all(CriticPolicy(game.problem, PolicyOptions()), choices, game.score(choices))
    eigh = np.linalg.eigh

    def threads() -> int:
        (numpys,) = (library for library in threadpool_info() if "numpy.libs" in library["filepath"])
        return int(numpys["num_threads"])

    def watched(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        during.append(threads())
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", watched)
    with threadpool_limits(2, user_api="blas"):
        policy.values(0)
        assert (during, threads()) == ([1], 2)
