from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from optuna_aes.data import Dataset, EncodeOptions, encode


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real tables that lie beside the checkout, not in it."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not there: it holds the real tables")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a text file."""

    def _write(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return _write


@pytest.fixture
def encode_splits(tmp_path: Path) -> Callable[..., Dataset]:
    """Encodes given splits, so that a test knows which rows train."""

    def _encode(
        train: Mapping[str, Sequence[Any]], test: Mapping[str, Sequence[Any]] | None = None, **options: Any
    ) -> Dataset:
        folder = tmp_path / "given"
        folder.mkdir(exist_ok=True)
        for name, rows in (("train", train), ("valid", test or train), ("test", test or train)):
            frame = pl.DataFrame(dict(rows), strict=False)
            if "label" not in frame.columns:
                frame = frame.with_columns(label=pl.Series(np.arange(frame.height) % 2))
            frame.write_parquet(folder / f"{name}.parquet")
        return encode(folder, tmp_path / "out", options=EncodeOptions(**options))

    return _encode
