from __future__ import annotations

import math

import pytest

from optuna_aes.visualization import _text as text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (85, "85"),
        (999, "999"),
        (1000, "1k"),
        (1234, "1.23k"),
        (10_000, "10k"),
        (12_345, "12.3k"),
        (99_960, "100k"),
        (134_000, "134k"),
        (999_900, "1M"),
        (2_050_000, "2.05M"),
        (3e9, "3G"),
    ],
)
def test_human(value: float, expected: str) -> None:
    assert text.human(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(640, "640 B"), (21_811, "21.3 KiB"), (3 * 2**30, "3.0 GiB")])
def test_bytes(value: int, expected: str) -> None:
    assert text.human_bytes(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(4.24, "4.2 s"), (59.97, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (3599.9, "1 h 00 min")],
)
def test_seconds(value: float, expected: str) -> None:
    assert text.human_seconds(value) == expected


def test_shares_differences_and_metrics() -> None:
    assert [text.percent(s) for s in (0.25, 0.1462, 1)] == ["25\u00a0%", "14.6\u00a0%", "100\u00a0%"]
    assert [text.signed(d) for d in (0.0007, -0.0012, 0.00001)] == ["+0.0007", "−0.0012", "±0"]
    assert [text.metric(v) for v in (0.98, math.nan)] == ["0.9800", "–"]


def test_a_long_name_keeps_both_ends() -> None:
    name = text.short("the_beginning_matters_and_so_does_the_end", 12)
    assert len(name) == 12
    assert (name[:3], name[-3:]) == ("the", "end")
    assert text.short("short", 12) == "short"
