from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from optuna_aes.errors import InputError
from optuna_aes.models.model import ModelOptions
from optuna_aes.strategies.baselines.rules import MDE, Uniform
from optuna_aes.strategies.registry import STRATEGIES, name_of, strategy_class

OWN = """
from dataclasses import dataclass
from typing import ClassVar
from optuna_aes.strategies.baselines.stock import Random

@dataclass(frozen=True)
class Mine(Random):
    name: ClassVar[str] = "adass"

class NoDataclass:
    pass
"""


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_found_by_its_name_and_says_what_it_is(name: str) -> None:
    kind = strategy_class(name)
    assert kind.name == name
    assert name_of(kind()) == name
    assert kind.__doc__


def test_a_strategy_of_ones_own_goes_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_strategy.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = strategy_class("own_strategy:Mine")
    assert name_of(kind()) == "own_strategy:Mine"  # though it calls itself like one of ours
    sys.modules.pop("own_strategy")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("adas", "strategy='adas' is not known: give one of adass"),
        ("no_such_module:Mine", "cannot be imported"),
        ("optuna_aes.strategies.paths:Mine", "cannot be imported"),
        (":Mine", "cannot be imported"),
        ("optuna_aes.space:Block", "no dataclass that derives from"),
        ("optuna_aes.strategies.base:OneShot", "no dataclass that derives from"),
    ],
)
def test_what_is_no_strategy_is_refused(name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        strategy_class(name)


def test_sizes_by_cardinality_are_candidates_that_fall_with_the_rows() -> None:
    from helpers import PLAIN

    strategy = MDE(alpha=0.5)
    supernet = strategy.supernet(PLAIN, (0, 1, 2, 4), model=ModelOptions(hidden=(4,)))
    path = strategy.path(supernet)
    assert path[0].tolist() == [0, 0, 0]
    assert path[-1].tolist() == [3, 3, 3]
    rows = np.array([30, 50, 8])
    order = np.argsort(rows)
    assert (np.diff(path[:, order], axis=1) <= 0).all()
    # Each point is the rounded size of some factor; neighbours differ, or they would be one point.
    for point in path[1:-1]:
        sizes = np.array([0, 1, 2, 4])[point]
        factors = np.linspace(0.1, 60, 60_000)
        nearest = np.abs(factors[:, None, None] * (rows**-0.5)[None, :, None] - np.array([0, 1, 2, 4])).argmin(2)
        assert (nearest == np.searchsorted([0, 1, 2, 4], sizes)).all(1).any()
    assert strategy_class("mde")().alpha == 0.3


def test_without_a_price_on_rows_sizes_are_uniform() -> None:
    from helpers import PLAIN

    supernet = Uniform().supernet(PLAIN, (0, 2, 4), model=ModelOptions(hidden=(4,)))
    assert Uniform().path(supernet).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    np.testing.assert_array_equal(MDE(alpha=0).path(supernet), Uniform().path(supernet))
    with pytest.raises(InputError, match="alpha=-1"):
        MDE(alpha=-1)
