from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_aes.budget import CONSTRAINT, MemoryBudget, parse_budget, parse_bytes
from optuna_aes.errors import InputError
from optuna_aes.space import EmbeddingSpace

SPACE = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16))
FULL = (957 + 4082) * 16


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ({"fraction": 0.25}, FULL // 4),
        ({"fraction": 1.0}, FULL),
        ({"params": 5000}, 5000),
        ({"bytes": 20_000}, 5000),
        ({"bytes": "20kB"}, 5000),
        ({"bytes": "20003"}, 5000),  # the quarter of a number is not there
    ],
)
def test_a_limit_is_a_number_of_parameters(given: dict[str, Any], params: int) -> None:
    budget = MemoryBudget(SPACE, **given)
    assert budget.params == params
    assert budget.bytes == 4 * params
    assert budget.fraction == params / FULL
    assert budget.full_params == FULL


def test_bytes_are_counted_in_the_dtype_of_the_space() -> None:
    half = EmbeddingSpace({"user": 957}, dtype="bfloat16")
    assert MemoryBudget(half, bytes="1KiB").params == 512
    assert MemoryBudget(half, params=512).bytes == 1024


def test_a_share_is_exact_for_every_whole_percent_and_every_earlier_share() -> None:
    space = EmbeddingSpace({"a": 100}, (0, 1))
    assert [MemoryBudget(space, fraction=k / 100).params for k in range(1, 101)] == list(range(1, 101))
    for params in range(1, 3000):
        assert MemoryBudget(SPACE, fraction=params / FULL).params == params


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "not none"),
        ({"fraction": 0.5, "params": 3}, "not fraction, params"),
        ({"fraction": 0.0}, "fraction=0.0 is out of range"),
        ({"fraction": 1.01}, "fraction=1.01 is out of range"),
        ({"fraction": float("nan")}, "fraction=nan is out of range"),
        ({"params": 0}, "params=0 is out of range"),
        ({"params": float("nan")}, "params=nan is out of range"),
        ({"params": float("inf")}, "params=inf is out of range"),
        ({"bytes": "a lot"}, "bytes='a lot' is not a size"),
        ({"bytes": "3"}, "below one parameter"),
        ({"fraction": 1e-9}, "below one parameter"),
    ],
)
def test_limits_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryBudget(SPACE, **given)


def test_a_budget_below_the_smallest_architecture_names_both_figures() -> None:
    space = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(2, 4))
    assert MemoryBudget(space, params=10_078).fits(space.uniform(2))
    with pytest.raises(InputError, match=r"10,077 parameters .* 10,078"):
        MemoryBudget(space, params=10_077)


def test_levels_never_fall_below_the_smallest_architecture() -> None:
    assert MemoryBudget(SPACE, params=1000).level(0.29).params == 290
    assert MemoryBudget(SPACE, params=1000).level(1e-9).params == 1
    space = EmbeddingSpace({"user": 10}, candidates=(2, 4))
    assert MemoryBudget(space, params=30).level(0.1).params == 20


@pytest.mark.parametrize(("size", "violation"), [(0, -1.0), (4, -0.5), (8, 0.0), (16, 1.0)])
def test_the_constraint_is_used_share_minus_one(size: int, violation: float) -> None:
    budget = MemoryBudget(SPACE, fraction=0.5)
    assert budget.violation(SPACE.uniform(size)) == violation
    assert budget.used(SPACE.uniform(size)) == violation + 1
    assert budget.fits(SPACE.uniform(size)) == (violation <= 0)


def test_check_sets_the_constraint_on_every_trial_and_prunes_what_is_over() -> None:
    budget = MemoryBudget(SPACE, fraction=0.25)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial: optuna.Trial) -> float:
        sizes = SPACE.suggest(trial)
        budget.check(trial, sizes)
        return 1.0

    study.optimize(objective, n_trials=25)
    states = set()
    for trial in study.trials:
        sizes = SPACE.from_params(trial.params)
        over = SPACE.cost(sizes).params > FULL // 4
        states.add(trial.state)
        assert trial.state == (optuna.trial.TrialState.PRUNED if over else optuna.trial.TrialState.COMPLETE)
        assert trial.constraints == {CONSTRAINT: pytest.approx(SPACE.cost(sizes).params / (FULL // 4) - 1)}
        assert (trial.constraints[CONSTRAINT] > 0) == over
    assert len(states) == 2  # both kinds were seen


def test_one_parameter_too_many_is_over() -> None:
    sizes = {"user": 16, "item": 16}
    assert MemoryBudget(SPACE, params=FULL - 1).violation(sizes) > 0
    assert not MemoryBudget(SPACE, params=FULL - 1).fits(sizes)


def distance(space: EmbeddingSpace, a: dict[str, int], b: dict[str, int]) -> int:
    return int(((space.to_indices(a) - space.to_indices(b)) ** 2).sum())


@pytest.mark.parametrize("seed", range(6))
def test_project_gives_the_nearest_feasible_sizes(seed: int) -> None:
    """Against all sizes of a small space."""
    rng = np.random.default_rng(seed)
    candidates = ((0, 1, 2, 4, 8), (2, 3, 16))[seed % 2]
    space = EmbeddingSpace({f"f{i}": int(rng.integers(1, 200)) for i in range(4)}, candidates)
    everything = [dict(zip(space.names, c, strict=True)) for c in itertools.product(candidates, repeat=4)]
    costs = np.array([space.cost(s).params for s in everything])
    for _ in range(12):
        budget = MemoryBudget(space, params=int(rng.integers(max(1, costs.min()), costs.max() + 1)))
        sizes = everything[int(rng.integers(len(everything)))]
        projected = budget.project(sizes)
        nearest = min(distance(space, sizes, everything[i]) for i in np.flatnonzero(costs <= budget.params))
        assert budget.fits(projected)
        assert distance(space, sizes, projected) == nearest
        assert all(projected[name] <= sizes[name] for name in space.names)
        assert budget.project(projected) == projected


def test_project_reaches_the_smallest_architecture_and_leaves_what_fits() -> None:
    space = EmbeddingSpace({"a": 3, "b": 5}, (1, 2, 4))
    assert MemoryBudget(space, params=8).project({"a": 4, "b": 4}) == {"a": 1, "b": 1}
    assert MemoryBudget(space, params=32).project({"b": 4, "a": 2}) == {"a": 2, "b": 4}


def test_project_serves_hundreds_of_blocks() -> None:
    space = EmbeddingSpace({f"f{i}": 10 + i for i in range(300)}, (0, 1, 2, 4, 8, 16))
    assert MemoryBudget(space, fraction=0.1).fits(MemoryBudget(space, fraction=0.1).project(space.uniform(16)))


def test_project_refuses_sizes_that_are_no_candidates() -> None:
    with pytest.raises(InputError, match="not a candidate"):
        MemoryBudget(SPACE, fraction=0.5).project({"user": 3, "item": 2})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512MiB", 512 * 2**20),
        ("1.5 GB", 1_500_000_000),
        ("2000000", 2_000_000),
        (2_000_000, 2_000_000),
        ("7 b", 7),
        ("3k", 3000),
        ("3Kib", 3072),
        (" 1 gib ", 2**30),
        ("2TB", 2 * 10**12),
        ("2TiB", 2**41),
    ],
)
def test_bytes_are_read(text: int | str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "MiB", "5 mb/s", "1,5GB", "1e6", "0.5", "nan", "5 i", "1 m İ", "1mİ", "٣", ".5G", -5]
)
def test_texts_that_are_no_bytes_are_refused(text: int | str) -> None:
    with pytest.raises(InputError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("0.25", FULL // 4),
        (0.25, FULL // 4),
        ("25%", FULL // 4),
        (" 25 % ", FULL // 4),
        ("1", FULL),
        ("100%", FULL),
        ("2.5e-1", FULL // 4),
        ("5000", 5000),
        (5000, 5000),
        ("5_000", 5000),
        ("5,000", 5000),
        ("1,005,000", 1_005_000),
        ("5e3", 5000),
        ("5000.0", 5000),
        ("20kB", 5000),
        ("1KiB", 256),
    ],
)
def test_budgets_of_a_command_line_are_read(text: str | float, params: int) -> None:
    assert parse_budget(SPACE, text).params == params


@pytest.mark.parametrize(
    "text",
    ["", "%", "much", "-1", "-5000", "0", "0%", "150%", "nan", "inf", "nan%", "1e400", "2.5", "0,25", "1,00", "1,0000",
     "0x10", "5 5", "²", "--", "1TiBB"],
)  # fmt: skip
def test_texts_that_are_no_budget_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_budget(SPACE, text)
