from __future__ import annotations

from pathlib import Path

import numpy as np

from optuna_aes.data import EncodeOptions
from optuna_aes.data.coders import make_coder
from optuna_aes.data.stage import Stage


def test_blocks_come_back_as_they_went_and_as_often_as_asked(tmp_path: Path) -> None:
    options = EncodeOptions(max_values=3)
    coders = [
        make_coder("a", "categorical", options),
        make_coder("n", "numeric", options),
        make_coder("g", "multi", options),
    ]
    rng = np.random.default_rng(0)
    blocks = [
        [rng.integers(0, 9, n), rng.normal(size=n).astype(np.float32), rng.integers(0, 9, (n, 3))] for n in (5, 1, 7)
    ]
    blocks[0][1][0] = np.nan
    with Stage(tmp_path / "codes", coders) as stage:
        for block in blocks:
            stage.append(block)
        assert stage.rows == 13
        for _ in range(2):
            read = [(rows, list(columns)) for rows, columns in stage.blocks()]
            assert [(rows.start, rows.stop) for rows, _ in read] == [(0, 5), (5, 6), (6, 13)]
            for (_, columns), block in zip(read, blocks, strict=True):
                for got, expected in zip(columns, block, strict=True):
                    np.testing.assert_array_equal(got, expected)
    assert (tmp_path / "codes").stat().st_size == 13 * 5 * 4
