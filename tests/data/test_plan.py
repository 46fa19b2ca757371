from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from optuna_aes.data import EncodeOptions, read_source
from optuna_aes.data.plan import make_plan
from optuna_aes.errors import DataError

TABLE = "user,age,price,city,click,ts\n1,30,2.5,Rome,0,5\n2,31,3,Oslo,1,6\n"


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (
            {},
            {
                "user": "categorical",
                "age": "categorical",
                "price": "numeric",
                "city": "categorical",
                "ts": "categorical",
            },
        ),
        (
            {
                "numeric_columns": ("age",),
                "categorical": ("price",),
                "drop": ("user",),
                "split": "time:ts",
                "multi": ("city",),
            },
            {"age": "numeric", "price": "categorical", "city": "multi"},
        ),
    ],
)
def test_fields_follow_content_and_options(
    write: Callable[..., Path], options: dict[str, Any], kinds: dict[str, str]
) -> None:
    plan = make_plan(read_source(write(TABLE)), EncodeOptions(label="click", **options))
    assert dict(plan.fields) == kinds
    assert plan.label == "click"
    assert list(dict(plan.fields)) == [c for c in ("user", "age", "price", "city", "ts") if c in kinds], (
        "in the file's order"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "no label column 'label'.*the columns are user, age"),
        ({"label": "clik"}, "no label column 'clik'.*did you mean 'click'"),
        ({"label": "click", "drop": ("cty",)}, "drop names 'cty', which .*did you mean 'city'"),
        ({"label": "click", "multi": ("genre",)}, "multi names 'genre'"),
        ({"label": "click", "categorical": ("nope",)}, "categorical names 'nope'"),
        ({"label": "click", "numeric_columns": ("city",)}, "numeric_columns names 'city', which holds text"),
        ({"label": "click", "split": "time:when"}, "split='time:when'.*no column 'when'"),
        ({"label": "click", "multi": ("city",), "drop": ("city",)}, "multi and drop both name 'city'"),
        ({"label": "click", "drop": ("click",)}, "drop and label both name 'click'"),
        ({"label": "click", "drop": ("user", "age", "price", "city", "ts")}, "no column left"),
    ],
)
def test_options_that_do_not_fit_the_table_are_refused(
    write: Callable[..., Path], options: dict[str, Any], message: str
) -> None:
    source = read_source(write(TABLE))
    with pytest.raises(DataError, match=message):
        make_plan(source, EncodeOptions(**options))


def test_nested_columns_must_be_dropped(tmp_path: Path) -> None:
    pl.DataFrame({"s": [{"a": 1}, {"a": 2}], "x": [1, 2], "label": [0, 1]}).write_parquet(tmp_path / "t.parquet")
    source = read_source(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="'s' holds nested or binary values"):
        make_plan(source, EncodeOptions())
    assert make_plan(source, EncodeOptions(drop=("s",))).fields == (("x", "categorical"),)
