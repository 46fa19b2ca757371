from __future__ import annotations

import json
from typing import Any

import pytest

from optuna_aes.data import EncodeOptions
from optuna_aes.errors import DataError


def test_options_survive_json() -> None:
    options = EncodeOptions(
        label="y", split="time:t", multi=("g",), numeric_columns=["a", "b"], fractions=(0.6, 0.2, 0.2)
    )
    assert EncodeOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert options.time_column == "t"


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(DataError, match="unknown encode option 'mincount'"):
        EncodeOptions.from_json({"mincount": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.8, 0.1, 0.2)}, r"fractions=\(0.8, 0.1, 0.2\) must be three"),
        ({"fractions": (0.9, 0.1, 0.0)}, "must be three positive numbers"),
        ({"fractions": (0.9, 0.1)}, "must be three positive numbers"),
        ({"split": "stratified"}, "split='stratified' is unknown"),
        ({"split": "time:"}, "split='time:' is unknown"),
        ({"numeric": "log"}, "numeric='log' is unknown"),
        ({"buckets": 1}, "buckets=1 is too small: give at least 2"),
        ({"min_count": 0}, "min_count=0 is too small"),
        ({"max_values": 0}, "max_values=0 is too small"),
        ({"seed": -1}, "seed=-1 is too small"),
        ({"separator": ""}, "separator='' is empty"),
        ({"drop": "id"}, "drop='id' must be a list"),
    ],
)
def test_values_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        EncodeOptions(**options)
