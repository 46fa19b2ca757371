from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import optuna
import pytest

from optuna_aes.errors import InputError
from optuna_aes.space import Block, EmbeddingSpace


def make(**kwargs: Any) -> EmbeddingSpace:
    return EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 2, 4, 8, 16), **kwargs)


def test_blocks_and_mappings_make_the_same_space() -> None:
    by_block = EmbeddingSpace([Block("user", 957), Block("item", 4082)], candidates=(16, 8, 4, 2, 0))
    assert by_block.blocks == make().blocks
    assert by_block.candidates == (0, 2, 4, 8, 16)
    assert (by_block.full, len(by_block), by_block.names) == (16, 2, ("user", "item"))


def test_table_params_are_rows_times_size() -> None:
    table = make().table_params
    assert table.dtype == np.int64
    assert table.tolist() == [[957 * d for d in (0, 2, 4, 8, 16)], [4082 * d for d in (0, 2, 4, 8, 16)]]


def test_large_tables_do_not_overflow() -> None:
    space = EmbeddingSpace({"a": 5_000_000_000, "b": 1}, candidates=(0, 512))
    assert space.cost(space.uniform(512)).params == 512 * 5_000_000_001


def test_suggest_asks_for_one_categorical_per_block() -> None:
    space = make()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    sizes = space.suggest(trial)
    assert list(sizes) == ["user", "item"]
    assert trial.params == {"size:user": sizes["user"], "size:item": sizes["item"]}
    assert trial.distributions == space.distributions()
    assert space.suggest(optuna.trial.FixedTrial({"size:user": 4, "size:item": 0})) == {"user": 4, "item": 0}


def test_a_study_of_the_space_is_read_back_from_a_database(tmp_path: Any) -> None:
    space = make()
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/a.db", study_name="s")
    study.enqueue_trial(space.to_params({"user": 8, "item": 0}))
    study.optimize(lambda trial: float(sum(space.suggest(trial).values())), n_trials=1)
    loaded = optuna.load_study(storage=f"sqlite:///{tmp_path}/a.db", study_name="s").trials[0]
    assert loaded.value == 8.0
    assert space.from_params(loaded.params) == {"user": 8, "item": 0}
    assert loaded.distributions == space.distributions()


def test_params_and_indices_round_trip() -> None:
    space = make()
    for user in space.candidates:
        sizes = {"user": user, "item": 16}
        assert space.from_params(space.to_params(sizes)) == sizes
        assert space.from_indices(space.to_indices(sizes)) == sizes
    assert space.to_indices({"item": 2, "user": 16}).tolist() == [4, 1]  # the space's order, not the mapping's


def test_check_puts_sizes_in_order_as_plain_ints() -> None:
    checked = make().check({"item": np.int64(2), "user": 4.0})  # type: ignore[dict-item]
    assert list(checked.items()) == [("user", 4), ("item", 2)]
    assert all(type(v) is int for v in checked.values())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"user": 2}, "no size for block 'item'"),
        ({"user": 2, "item": 2, "shop": 2}, "unknown block 'shop'"),
        ({"user": 2, "item": 3}, r"sizes\['item'\]=3 is not a candidate"),
    ],
)
def test_check_says_what_is_wrong(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().check(sizes)


def test_params_of_another_space_are_refused() -> None:
    with pytest.raises(InputError, match="'size:item'"):
        make().from_params({"size:user": 2})


def test_cost_counts_tables_projections_and_optimizer_state() -> None:
    sizes = {"user": 2, "item": 16}
    pad, linear, half = make().cost(sizes), make(align="linear").cost(sizes), make(dtype="float16").cost(sizes)
    params = 957 * 2 + 4082 * 16
    assert (pad.params, pad.projections, pad.bytes) == (params, 0, 4 * params)
    assert pad.optimizer_bytes == 4 * (params + 957 + 4082)  # row-wise Adam: d + 1 values a row
    assert (linear.params, linear.projections, linear.bytes) == (params, 2 * 16, 4 * (params + 2 * 16))
    assert linear.optimizer_bytes == pad.optimizer_bytes + 4 * 2 * 2 * 16  # dense Adam: two values each
    assert (half.params, half.bytes) == (params, 2 * params)


def test_a_dropped_block_costs_nothing() -> None:
    cost = make(align="linear").cost({"user": 0, "item": 0})
    assert (cost.params, cost.projections, cost.bytes, cost.optimizer_bytes) == (0, 0, 0, 0)


def test_cost_takes_sizes_between_the_candidates() -> None:
    assert make().cost({"user": 3, "item": 1}).params == 957 * 3 + 4082


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"user": 2}, "no size for block 'item'"),
        ({"user": 2, "item": -1}, "0 or more"),
        ({"user": 2.5, "item": 1}, r"sizes\['user'\] is 2.5"),
    ],
)
def test_cost_refuses(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make().cost(sizes)


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ((), "two different"),
        ((4,), "two different"),
        ((4, 4, 8), "two different"),
        ((-1, 4), "≥ 0"),
        ((1.5, 4), "1.5"),
        ((float("inf"), 4), "inf"),
        ((float("nan"), 4), "nan"),
        ((True, 4), "True"),
        (("2", "4"), "'2'"),
        ((None, 4), "None"),
    ],
)
def test_candidates_that_are_not_sizes_are_refused(candidates: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingSpace({"user": 3}, candidates)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({}, "empty"),
        ({"user": 0}, "0 rows"),
        ({"user": 2.5}, "2.5"),
        ({"user": "many"}, "'many'"),
        ({"": 3}, "block name ''"),
        ({"a\nb": 3}, "block name"),
        ({"a\udcff": 3}, "block name"),
        ({"a" * 508: 3}, "block name"),
        ([Block("a", 2), Block("a", 3)], "given twice"),
        ({1: 2, "1": 3}, "given twice"),
    ],
)
def test_blocks_that_cannot_be_searched_are_refused(blocks: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingSpace(blocks)


def test_the_longest_name_fits_a_database(tmp_path: Any) -> None:
    space = EmbeddingSpace({"ü" * 507: 3}, (0, 1))
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/a.db")
    study.optimize(lambda trial: float(sum(space.suggest(trial).values())), n_trials=1)
    assert list(study.trials[0].params) == ["size:" + "ü" * 507]


@pytest.mark.parametrize(("option", "value"), [("dtype", "int8"), ("align", "stretch")])
def test_options_that_are_not_known_are_refused(option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{option}='{value}' is not known"):
        make(**{option: value})


def test_plain_optuna_studies_need_no_torch() -> None:
    # A process of its own: other tests of this one have imported torch.
    code = "import sys, optuna_aes.budget; from optuna_aes import EmbeddingSpace; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
