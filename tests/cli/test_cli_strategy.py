from __future__ import annotations

import pytest

from optuna_aes.cli.app import main
from optuna_aes.cli.options import SearchOptions
from optuna_aes.cli.strategy import strategy_of
from optuna_aes.cli.values import Names, Numbers
from optuna_aes.errors import InputError
from optuna_aes.strategies.adass.strategy import AdaSS
from optuna_aes.strategies.baselines.rules import MDE
from optuna_aes.strategies.baselines.scratch import RetrainTPE
from optuna_aes.strategies.pruning.saliency import Saliency


def made(strategy: str, *given: str, **options: object) -> object:
    return strategy_of(SearchOptions(strategy=strategy, set=Names(given), **options))  # type: ignore[arg-type]


def test_options_reach_the_fields_of_their_name_and_no_others() -> None:
    strategy = made("adass", paths=2, table_sampling="loss", levels=Numbers((1.0, 0.5)), group=3, lr=0.5)
    assert isinstance(strategy, AdaSS)
    assert (strategy.sampling.paths, strategy.sampling.table) == (2, "loss")
    assert (strategy.policy.levels, strategy.policy.group) == ((1.0, 0.5), 3)
    assert strategy.policy.lr == AdaSS().policy.lr  # --lr is that of training
    assert made("saliency", batch_size=64) == Saliency()
    assert made("adass") == AdaSS()


def test_blocks_are_for_strategies_that_have_them() -> None:
    for name in ("adass", "tpe", "dnis"):
        strategy = made(name, blocks="frequency", parts=3)
        assert (getattr(strategy, "blocks", None), getattr(strategy, "parts", None)) == ("frequency", 3)
    for name in ("sham", "retrain-tpe"):
        with pytest.raises(InputError, match=f"--blocks shares: the strategy '{name}'"):
            made(name, blocks="shares")


def test_set_gives_fields_that_have_no_option() -> None:
    assert made("mde", "alpha=0.5") == MDE(alpha=0.5)
    assert made("saliency", "batches=3", "levels=1;0.5") == Saliency(batches=3, levels=(1.0, 0.5))
    assert made("retrain-tpe", "prune=false") == RetrainTPE(prune=False)
    strategy = made("adass", "policy.entropy=0.3", "sampling.probes=7")
    assert isinstance(strategy, AdaSS)
    assert (strategy.policy.entropy, strategy.sampling.probes) == (0.3, 7)


@pytest.mark.parametrize(
    ("strategy", "given", "text"),
    [
        ("mde", "alpha", "--set 'alpha' is not of the form NAME=VALUE"),
        ("mde", "beta=1", "--set beta=1: 'beta' is not known: give one of sharing"),
        ("mde", "alpha=x", "--set alpha=x: give a number"),
        ("mde", "alpha=-1", "alpha=-1.0 is out of range"),
        ("saliency", "batches=1.5", "--set batches=1.5: give a whole number"),
        ("saliency", "levels=a;b", "--set levels=a;b: give values with ; between them"),
        ("retrain-tpe", "prune=maybe", "--set prune=maybe: give true or false"),
        ("adass", "policy=1", "--set policy=1: 'policy' is a part, give policy.NAME"),
        ("adass", "sharing.x=1", "'sharing' is not a part of several fields"),
    ],
)
def test_what_cannot_be_set(strategy: str, given: str, text: str) -> None:
    with pytest.raises(InputError) as error:
        made(strategy, given)
    assert text in str(error.value)


def test_set_may_be_given_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SearchOptions] = []
    monkeypatch.setattr("optuna_aes.cli.run.run_search", seen.append)
    for given in (["--set", "batches=3,price=0", "--set", "batch_size=64"], ["--set", "price=0"], []):
        assert main(["search", "clicks.csv", "--strategy", "saliency", *given]) == 0
    assert strategy_of(seen[0]) == Saliency(batches=3, price=0, batch_size=64)
    assert strategy_of(seen[1]) == Saliency(price=0)
    assert strategy_of(seen[2]) == Saliency()
