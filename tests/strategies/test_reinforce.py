from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import SizeGame, play, size_game

from optuna_aes.strategies.adass.policy import Floats, Ints, PolicyOptions, Problem, softmax
from optuna_aes.strategies.adass.reinforce import ReinforcePolicy

PARAMS = np.array([[0, 3, 6], [0, 5, 10]])
# Probabilities in tenths: every choice, repeated by its weight, is the expectation itself.
TENTHS = np.array([[2, 3, 5], [6, 1, 3]])


def problem_at(budget: int) -> Problem:
    return Problem(PARAMS, (budget,))


def weighted_choices() -> Ints:
    rows = []
    for a, b in itertools.product(range(3), repeat=2):
        rows += [(a, b)] * int(TENTHS[0, a] * TENTHS[1, b])
    return np.array(rows, dtype=np.int64)


def finite_differences(objective: object, logits: Floats, step: float = 1e-6) -> Floats:
    gradient = np.zeros_like(logits)
    for at in np.ndindex(*logits.shape):
        up, down = logits.copy(), logits.copy()
        up[at] += step
        down[at] -= step
        gradient[at] = (objective(up) - objective(down)) / (2 * step)
    return gradient


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[Floats]:
    """The gradients that reach Adam."""
    gradients: list[Floats] = []
    monkeypatch.setattr(ReinforcePolicy, "_adam", lambda self, gradient, level: gradients.append(gradient.copy()))
    return gradients


@pytest.mark.parametrize("entropy", [0.0, 0.3])
@pytest.mark.parametrize("budget", [7, 12])
@pytest.mark.parametrize("penalty", ["hinge", "abs", "compete"])
@pytest.mark.parametrize("estimator", ["group", "ema"])
def test_the_gradient_is_that_of_the_expected_objective(
    estimator: str, penalty: str, budget: int, entropy: float, caught: list[Floats]
) -> None:
    """All choices enumerated, against finite differences of E[score/spread − λ·penalty] + entropy bonus."""
    problem = problem_at(budget)
    options = PolicyOptions(
        estimator=estimator, penalty=penalty, levels=(1.0,), entropy=entropy, price=0.7, horizon=180
    )
    policy = ReinforcePolicy(problem, options)
    logits = np.log(TENTHS / 10)
    policy.logits[0] = logits
    table = np.random.default_rng(0).normal(size=(3, 3))
    choices = weighted_choices()
    policy.fold(choices, table[choices[:, 0], choices[:, 1]], 0)
    scale = table[choices[:, 0], choices[:, 1]].std()
    everything = np.array(list(itertools.product(range(3), repeat=2)))
    over = problem.used(everything) / budget - 1
    # What competing blocks pay is the gradient of the expected memory while that is over the budget.
    competes = (TENTHS / 10 * PARAMS).sum() > budget
    charge = {"hinge": np.maximum(0, over), "abs": np.abs(over), "compete": competes * over}[penalty]
    left = 1 - 100 / 180

    def objective(at: Floats) -> float:
        probabilities = softmax(at)
        joint = probabilities[0, everything[:, 0]] * probabilities[1, everything[:, 1]]
        bonus = -(probabilities * np.log(probabilities)).sum()
        reward = table[everything[:, 0], everything[:, 1]] / scale - 0.7 * charge
        return float((joint * reward).sum() + entropy * left * bonus)

    assert ((TENTHS / 10 * PARAMS).sum() > budget) == (budget == 7)
    np.testing.assert_allclose(caught[0], finite_differences(objective, logits), atol=1e-6)


@pytest.mark.parametrize("estimator", ["group", "ema"])
def test_the_scale_of_the_scores_changes_nothing(estimator: str) -> None:
    game = size_game(0)
    policies = [ReinforcePolicy(game.problem, PolicyOptions(estimator=estimator, levels=(1.0,))) for _ in range(2)]
    rng = np.random.default_rng(0)
    for _ in range(5):
        choices = rng.integers(5, size=(12, 6))
        policies[0].fold(choices, game.score(choices), 0)
        policies[1].fold(choices, 1000 * game.score(choices) - 7, 0)
    np.testing.assert_allclose(policies[0].logits, policies[1].logits, rtol=1e-4, atol=1e-6)


def test_a_running_mean_compares_groups_whatever_their_spread(caught: list[Floats]) -> None:
    """A group of the same mean as those before is no better and no worse than they, however narrow it is."""
    policy = ReinforcePolicy(problem_at(16), PolicyOptions(estimator="ema", levels=(1.0,), entropy=0.0))
    choices = np.array([[0, 0], [2, 2]])
    for spread in (1e-1, 1e-2, 1e-3):
        policy.fold(choices, 0.8 + spread * np.array([-1.0, 1.0]), 0)
    for gradient in caught:
        np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5]] * 2, atol=1e-9)
    policy.fold(choices, np.array([0.9, 0.9]), 0)  # better than before, and alike: both are made likelier
    assert (caught[-1][:, [0, 2]] > 0).all()


@pytest.mark.parametrize("penalty", ["hinge", "abs", "compete"])
@pytest.mark.parametrize("estimator", ["group", "ema"])
def test_an_additive_score_is_learnt_inside_the_budget(estimator: str, penalty: str) -> None:
    options = PolicyOptions(estimator=estimator, penalty=penalty, levels=(1.0,), horizon=600)
    lead, share = [], []
    for seed in range(4):
        game = size_game(seed, blocks=5, interaction=0.0)
        policy = ReinforcePolicy(game.problem, options)
        best = play(game, policy, options, 600, seed=seed)[0]
        share.append((best - game.values[0]) / (game.best(0) - game.values[0]))
        lead.append(mean_inside(game, policy.probabilities(0)) - mean_inside(game, np.full((5, 5), 0.2)))
    assert np.mean(share) > 0.97
    assert min(lead) > 0.003


def mean_inside(game: SizeGame, probabilities: Floats) -> float:
    """Expected score of the policy, given that the budget holds."""
    joint = probabilities[np.arange(probabilities.shape[0]), game.everything].prod(1)
    joint = joint * (game.problem.used(game.everything) <= game.problem.budgets[0])
    return float((joint * game.values).sum() / joint.sum())


def test_the_price_rises_while_the_policy_is_over_budget_and_falls_to_zero_when_it_is_not() -> None:
    options = PolicyOptions(estimator="group", levels=(1.0, 0.5), price=1.0, price_lr=0.5, lr=0.0)
    policy = ReinforcePolicy(Problem(PARAMS, (16, 4)), options)
    choices, values = np.array([[0, 0], [1, 0]]), np.array([0.1, 0.2])
    expected = PARAMS.mean(1).sum()
    for _ in range(2):
        policy.fold(choices, values, 1)
    assert policy.price[1] == pytest.approx(1.0 + 2 * 0.5 * (expected / 4 - 1))
    assert policy.price[0] == 1.0
    for _ in range(10):
        policy.fold(choices, values, 0)
    assert policy.price[0] == 0.0


def test_competing_blocks_pay_for_what_they_take_beyond_their_share_while_the_policy_is_over_budget(
    caught: list[Floats],
) -> None:
    options = PolicyOptions(estimator="group", penalty="compete", levels=(1.0, 0.1), entropy=0.0, price=1.0)
    policy = ReinforcePolicy(Problem(PARAMS, (16, 2)), options)
    choices = np.array([[2, 0], [0, 2]])  # inside the first budget, over the second
    for level in (0, 1):
        policy.fold(choices, np.array([0.5, 0.5]), level)
    assert not caught[0].any()  # uniform: 8 parameters expected of 16
    taken, expected, chosen = PARAMS[[[0, 1], [0, 1]], choices], PARAMS.mean(1), np.eye(3)[choices]
    charge = (taken - expected) / 2
    np.testing.assert_allclose(caught[1], -(charge[:, :, None] * (chosen - 1 / 3)).mean(0))


@pytest.mark.parametrize("estimator", ["group", "ema"])
@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7], [0.1 + 0.2, 0.3, 0.3]])
def test_equal_scores_and_a_single_one_move_nothing(estimator: str, values: list[float]) -> None:
    policy = ReinforcePolicy(problem_at(16), PolicyOptions(estimator=estimator, levels=(1.0,), entropy=0.0))
    for _ in range(3):
        policy.fold(np.array([[0, 1], [2, 1], [1, 0]])[: len(values)], np.array(values), 0)
    np.testing.assert_allclose(policy.probabilities(0), 1 / 3, atol=1e-6)


def test_levels_learn_apart() -> None:
    policy = ReinforcePolicy(Problem(PARAMS, (16, 8)), PolicyOptions(estimator="group", levels=(1.0, 0.5)))
    policy.fold(np.array([[0, 0], [1, 1]]), np.array([0.1, 0.9]), 1)
    assert not policy.logits[0].any()
    assert policy.probabilities(1)[0, 1] > policy.probabilities(1)[0, 0]
