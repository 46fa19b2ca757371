"""The table that finds a batch's codes at once, and the coder that numbers values with it from several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from optuna_aes.data.coders import CategoricalCoder
from optuna_aes.data.fields import MISSING
from optuna_aes.data.lookup import CodeTable
from optuna_aes.data.options import EncodeOptions

SPREAD = np.random.default_rng(0).choice(2**62, 30_000, replace=False).astype(np.uint64) + np.uint64(1)
# All want one of four slots of the smallest tables, and few of larger ones.
CROWDED = (
    (np.arange(1, 1001, dtype=np.uint64) << np.uint64(14))
    + np.uint64(1021)
    + np.arange(1000, dtype=np.uint64) % np.uint64(4)
)


@pytest.mark.parametrize("hashes", [SPREAD, CROWDED], ids=["spread", "crowded"])
def test_what_was_added_is_found_and_nothing_else(hashes: np.ndarray) -> None:
    table, known = CodeTable(), dict[int, int]()
    for part in np.array_split(hashes[: len(hashes) // 2], 7):
        codes = np.arange(len(known), len(known) + len(part), dtype=np.uint32)[::-1].copy()
        table.add(np.tile(part, 2), np.tile(codes, 2))
        known |= dict(zip(part.tolist(), codes.tolist(), strict=True))
        asked = np.random.default_rng(1).choice(hashes, 5000)
        found, unknown = table.find(asked)
        assert sorted(unknown.tolist()) == [i for i, h in enumerate(asked.tolist()) if h not in known]
        there = np.setdiff1d(np.arange(len(asked)), unknown)
        assert found[there].tolist() == [known[h] for h in asked[there].tolist()]


def test_an_empty_table_knows_nothing() -> None:
    table = CodeTable()
    assert table.find(SPREAD[:3])[1].tolist() == [0, 1, 2]
    codes, unknown = table.find(SPREAD[:0])
    assert len(codes) == len(unknown) == 0


def test_threads_that_code_at_once_agree_on_every_value() -> None:
    coder = CategoricalCoder("x", EncodeOptions(), multi=False)
    rng = np.random.default_rng(0)
    batches = [pl.Series("x", rng.integers(0, 5000, 2000)).cast(pl.String) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(coder.codes, batches))
    pairs = set(zip(pl.concat(batches).to_list(), np.concatenate(codes).tolist(), strict=True))
    assert len(pairs) == len({value for value, _ in pairs}) == len({code for _, code in pairs})
    assert coder.codes(pl.Series(["", "7", ""])).tolist() == [MISSING, dict(pairs)["7"], MISSING]
