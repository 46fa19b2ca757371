from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import optuna
import pytest

from optuna_aes import AdaSS, ModelOptions, PolicyOptions, SamplingOptions, TrainOptions
from optuna_aes.errors import InputError, StudyMismatchError
from optuna_aes.search.settings import (
    DATA,
    PLAN,
    SETTINGS,
    Plan,
    check_same,
    differences,
    jsonable,
    known_settings,
    plan_of,
    read,
    reference_sizes,
    revive,
    write,
)

KNOWN: dict[str, Any] = {"format": 1, "seed": 0, "model": {"hidden": [8, 4]}, "train": {"lr": 0.1}, "fit": {"lr": 0.1}}
HERE = {"folder": None, "rows": {}, "facts": {}}


def study_of(settings: dict[str, Any] | None = None) -> optuna.Study:
    study = optuna.create_study(study_name="s")
    if settings is not None:
        write(study, settings, Plan(), HERE)
    return study


@pytest.mark.parametrize(
    "value",
    [
        ModelOptions(hidden=(3,), dropout=0.5),
        TrainOptions(lr=0.3, schedule="cosine"),
        AdaSS(
            sharing="separate",
            sampling=SamplingOptions(paths=1, full_share=0.2),
            policy=PolicyOptions(levels=(1.0, 0.2)),
        ),
        Plan(trials=7, reference=False),
    ],
    ids=lambda v: type(v).__name__,
)
def test_options_come_back_from_json_as_they_were(value: Any) -> None:
    assert revive(type(value), json.loads(json.dumps(jsonable(value)))) == value


def test_options_of_a_later_release_are_left_out() -> None:
    assert revive(TrainOptions, {"lr": 0.2, "invented_later": 1}) == TrainOptions(lr=0.2)


def test_settings_are_written_once_and_read_back() -> None:
    study = study_of(KNOWN)
    assert (*read(study), plan_of(study)) == (KNOWN, HERE, Plan())


def test_the_plan_and_the_place_of_the_data_may_change() -> None:
    study = study_of(KNOWN)
    write(study, KNOWN, Plan(trials=900), {**HERE, "folder": "elsewhere"})
    assert plan_of(study).trials == 900
    assert read(study)[1]["folder"] == "elsewhere"


def test_rows_in_memory_do_not_forget_where_the_encoded_table_lies() -> None:
    study = optuna.create_study(study_name="s")
    write(study, KNOWN, Plan(), {**HERE, "folder": "on disk"})
    write(study, KNOWN, Plan(), HERE)
    assert read(study)[1]["folder"] == "on disk"


def test_other_settings_are_refused_and_leave_everything() -> None:
    study = study_of(KNOWN)
    with pytest.raises(StudyMismatchError, match="seed was 0 and is 1"):
        write(study, {**KNOWN, "seed": 1}, Plan(trials=900), HERE)
    assert (*read(study), plan_of(study)) == (KNOWN, HERE, Plan())


def test_a_creation_that_was_cut_short_is_done_again() -> None:
    study = study_of()
    study.set_user_attr(DATA, {})
    study.set_user_attr(PLAN, asdict(Plan(trials=1)))
    assert known_settings(study) is None
    write(study, KNOWN, Plan(), HERE)
    assert (*read(study), plan_of(study)) == (KNOWN, HERE, Plan())


def test_a_study_with_trials_and_no_settings_is_another_program_s() -> None:
    study = study_of()
    study.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(StudyMismatchError, match="not a search of optuna_aes"):
        known_settings(study)
    with pytest.raises(StudyMismatchError, match="not a search of optuna_aes"):
        read(study)


def test_settings_of_another_format_are_refused() -> None:
    study = study_of()
    study.set_user_attr(SETTINGS, {**KNOWN, "format": 2})
    with pytest.raises(StudyMismatchError, match="format 2, this release reads 1"):
        read(study)


def refusal(**changes: Any) -> str:
    with pytest.raises(StudyMismatchError) as caught:
        check_same("s", KNOWN, {**KNOWN, **changes})
    return str(caught.value)


def test_a_difference_is_told_by_its_path() -> None:
    check_same("s", KNOWN, {**KNOWN, "model": {"hidden": (8, 4)}})  # a tuple is a list to JSON
    assert "model.hidden was [8, 4] and is [8]" in refusal(model={"hidden": (8,)})
    assert "model.new was None and is 1" in refusal(model={"hidden": [8, 4], "new": 1})


def test_a_study_from_before_an_option_was_made_with_its_default() -> None:
    before = {**KNOWN, "model": {k: v for k, v in jsonable(ModelOptions()).items() if k != "cross_layers"}}
    assert revive(ModelOptions, before["model"]) == ModelOptions()
    check_same("s", before, {**KNOWN, "model": ModelOptions()})
    with pytest.raises(StudyMismatchError, match=r"model\.cross_layers was 3 and is 2"):
        check_same("s", before, {**KNOWN, "model": ModelOptions(cross_layers=2)})


def test_one_option_that_changes_model_and_supernet_is_told_once() -> None:
    text = refusal(train={"lr": 0.2}, fit={"lr": 0.2})
    assert "train.lr was 0.1 and is 0.2" in text
    assert "fit.lr" not in text
    assert "fit.lr was 0.1 and is 0.3" in refusal(fit={"lr": 0.3})
    assert "fit.lr was 0.1 and is 0.3" in refusal(train={"lr": 0.2}, fit={"lr": 0.3})


def test_of_many_differences_three_are_told() -> None:
    text = refusal(a=1, b=2, c=3, d=4, e=5)
    assert text.count(" was None and is ") == 3
    assert "and 2 more" in text


@pytest.mark.parametrize(("name", "value"), [("trials", 0), ("retrain", -1), ("retrain_seeds", 0)])
def test_a_plan_of_nothing_is_refused(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name}={value} is out of range"):
        replace(Plan(), **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("full", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (16, [1, 2, 4, 8, 16]), (20, [1, 2, 4, 8, 16, 20])]
)
def test_reference_sizes(full: int, sizes: list[int]) -> None:
    assert reference_sizes(full) == sizes


def test_an_option_that_came_later_is_no_difference() -> None:
    before = {"strategy": {"options": {"sharing": "prefix"}}, "fit": {"epochs": 3}}
    now = {
        "strategy": {"options": {"sharing": "prefix", "blocks": "field", "parts": 5}},
        "fit": {"epochs": 3, "compile": False},
    }
    assert list(differences(before, now)) == []
    now["fit"] = {"epochs": 4, "compile": True}
    assert list(differences(before, now)) == [("fit.epochs", 3, 4), ("fit.compile", False, True)]
