from __future__ import annotations

import numpy as np
import pytest

from optuna_aes.budget import MemoryBudget
from optuna_aes.errors import InputError
from optuna_aes.space import ClusteredSpace, EmbeddingSpace

FIELDS = EmbeddingSpace({"user": 10, "item": 20}, candidates=(0, 1, 2, 4))


def space(**changes: object) -> ClusteredSpace:
    return ClusteredSpace(FIELDS, **{"clusters": 2, "router": 500, **changes})


def sizes(*values: int) -> dict[str, int]:
    return dict(zip(("user@0", "item@0", "user@1", "item@1"), values, strict=True))


def test_a_parameter_is_a_field_in_a_cluster() -> None:
    assert list(space().distributions()) == ["size:user@0", "size:item@0", "size:user@1", "size:item@1"]


def test_the_cost_is_the_sum_over_clusters_and_the_router() -> None:
    cost = space().cost(sizes(1, 2, 4, 0))
    assert cost.params == 10 + 40 + 40 + 500
    assert cost.router == 500
    assert cost.bytes == 4 * cost.params


def test_a_router_that_is_not_counted_is_told_all_the_same() -> None:
    cost = space(counted=False).cost(sizes(1, 2, 4, 0))
    assert (cost.params, cost.router, cost.bytes) == (90, 500, 360)


@pytest.mark.parametrize("counted", [True, False])
def test_the_cost_of_many_is_that_of_each(counted: bool) -> None:
    searched = space(counted=counted)
    choices = np.random.default_rng(0).integers(0, 4, (30, 4)) * np.random.default_rng(1).integers(0, 2, (30, 4))
    each = [searched.cost(searched.from_indices(choice)).params for choice in choices]
    assert searched.params_of(choices).tolist() == each
    assert searched.params_of(choices[:0]).tolist() == []


@pytest.mark.parametrize("values", [(1, 2, 0, 0), (0, 0, 0, 0)])
def test_one_cluster_needs_no_router(values: tuple[int, ...]) -> None:
    cost = space().cost(sizes(*values))
    assert (cost.params, cost.router) == (values[0] * 10 + values[1] * 20, 0)


def test_uniform_sizes_are_those_of_one_model() -> None:
    assert space().uniform(4) == sizes(4, 4, 0, 0)
    assert MemoryBudget(space(), params=60).full_params == MemoryBudget(FIELDS, params=60).full_params == 120


def test_a_budget_below_the_router_is_refused_where_every_choice_has_one() -> None:
    with pytest.raises(
        InputError, match="smallest architecture of the space, 500: raise the budget, or let clusters begin at 1"
    ):
        MemoryBudget(space(least=2), params=60)
    MemoryBudget(space(least=2, counted=False), params=60)
    MemoryBudget(space(least=1), params=60)
    assert MemoryBudget(space(least=2), params=1000).level(0.1).params == 500


def test_clusters_must_be_able_to_go_out_of_use() -> None:
    with pytest.raises(InputError, match="must have 0"):
        ClusteredSpace(EmbeddingSpace({"user": 10}, candidates=(1, 2)), clusters=2, router=1)


def test_it_is_made_again_of_what_it_tells() -> None:
    again = ClusteredSpace(FIELDS, **space(least=2, counted=False).to_json())
    assert again.to_json() == {"clusters": 2, "router": 500, "counted": False, "least": 2}
    assert again.names == space().names
