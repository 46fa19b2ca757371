"""Options and recipes: one list of options, the command line over the recipe over the defaults."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from optuna_aes.cli import request
from optuna_aes.cli.options import SearchOptions, option_types
from optuna_aes.cli.recipe import merged, read_recipe
from optuna_aes.cli.strategy import strategy_of
from optuna_aes.data import EncodeOptions
from optuna_aes.errors import InputError
from optuna_aes.models.backbones.registry import BACKBONES
from optuna_aes.models.model import ModelOptions
from optuna_aes.models.train_options import TrainOptions
from optuna_aes.search.settings import Plan
from optuna_aes.strategies.adass.strategy import AdaSS

STUDIES = Path(__file__).parents[2] / "studies"
DEFAULTS = {f.name: f.default for f in dataclasses.fields(SearchOptions)}


def recipe(folder: Path, text: str) -> str:
    path = folder / "x.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def merge(source: str, **explicit: Any) -> SearchOptions:
    return merged(source, {**DEFAULTS, **explicit}, explicit.keys())


def test_the_defaults_are_the_librarys() -> None:
    options = SearchOptions(data="x.csv")

    assert request.encoding(options) == EncodeOptions()
    assert request.training(options) == TrainOptions()
    assert strategy_of(options) == AdaSS()
    assert request.candidates(options) == (0, 1, 2, 4, 8, 16)
    for of_library in (Plan(), ModelOptions()):
        for field in dataclasses.fields(of_library):
            if field.name != "picks_at":  # which searches that are compared have, and compare sets
                assert getattr(options, field.name) == getattr(of_library, field.name), field.name


def test_the_help_names_every_backbone() -> None:
    """It cannot read them itself: they come with torch."""
    hint = typing.get_type_hints(SearchOptions, include_extras=True)["backbone"]
    names = hint.__metadata__[0].help.removesuffix(" (two fields).")
    assert re.split(r", | or ", names) == list(BACKBONES)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dim": 8}, (0, 1, 2, 4, 8)),
        ({"dim": 10}, (0, 1, 2, 4, 8, 10)),
        ({"dim": 1}, (0, 1)),
        ({"sizes": (6, 0, 3)}, (0, 3, 6)),
        ({"sizes": (0, 3, 6), "dim": 6}, (0, 3, 6)),
    ],
)
def test_sizes_and_dim(options: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert request.candidates(SearchOptions(**options)) == expected


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'data = "a.csv"\ntrials = 50\nlr = 1\nhidden = [8, 4]\nbudget = 0.5\nlevels = [1, 0.5]\n')

    options = merge(path, trials=300, seed=4)  # 300 is the default too, and was given all the same

    assert (options.trials, options.seed, options.lr, options.hidden) == (300, 4, 1.0, (8, 4))
    assert (options.budget, options.levels, options.data, options.name) == ("0.5", (1.0, 0.5), "a.csv", "x")
    assert options.batch_size == 4096


def test_a_table_needs_no_recipe() -> None:
    options = merge("some/clicks.parquet")
    assert (options.data, options.name) == ("some/clicks.parquet", "clicks")
    assert merge("clicks.csv", name="mine").name == "mine"


def test_environment_variables_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(tmp_path, 'data = "${AES_TEST}/x"\nbudget = "512MiB"\n')
    monkeypatch.setenv("AES_TEST", "/some/where")
    assert merge(path).data == "/some/where/x"

    monkeypatch.delenv("AES_TEST")
    with pytest.raises(InputError, match=r"environment variable AES_TEST .* --data"):
        merge(path)
    assert merge(path, data="other.csv").data == "other.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3", "unknown key 'trails': did you mean 'trials'"),
        ("[training]\nlr = 1", r"unknown key 'training': write all keys at the top"),
        ("json = true", "give --json on the command line"),
        ("trials = 3.5", "trials = 3.5: give a whole number"),
        ("trials = true", "trials = True: give a whole number"),
        ('lr = "high"', "give a number"),
        ("batch_norm = 1", "give true or false"),
        ("label = 1", "give a text"),
        ("sizes = 16", "give a list of whole numbers"),
        ("sizes = [1.5]", "give a list of whole numbers"),
        ("levels = ['a']", "give a list of numbers"),
        ("drop = 'user'", "give a list of names"),
        ("budget = [1]", "give a number, or a text"),
        ("batch_size = 1\nbatch-size = 2", "'batch_size' twice"),
        ("trials = ", "is not TOML"),
        ("trials = 1\ntrials = 2", "is not TOML"),
        ("", "names no table"),
    ],
)
def test_a_recipe_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        merge(recipe(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"label = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        merge(str(tmp_path / "x.toml"))


def test_dashes_are_as_good_as_underscores(tmp_path: Path) -> None:
    assert read_recipe(recipe(tmp_path, "batch-size = 12")) == {"batch_size": 12}


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda p: p.stem)
def test_our_own_recipes_are_valid(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("FRAPPE_DIR", "ADULT_DIR", "MOVIELENS_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.chdir(tmp_path)

    wish = request.prepare(merge(str(path)))

    assert wish.candidates == (0, 1, 2, 4, 8, 16)
    assert not list(tmp_path.iterdir())


def test_every_option_has_a_type_that_a_recipe_can_hold() -> None:
    kinds = option_types()
    assert set(kinds) == set(DEFAULTS)
    for name, default in DEFAULTS.items():
        assert default is None or isinstance(default, kinds[name]), name
