from __future__ import annotations

from pathlib import Path

import pytest
from tiny_search import Trials, finished, tiny_data, tiny_search

from optuna_aes import Dataset, Search


@pytest.fixture(scope="session")
def data() -> Dataset:
    return tiny_data()


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """A finished search whose dataset lies in a folder; tests only read it."""
    folder = tmp_path_factory.mktemp("done")
    search = tiny_search(f"sqlite:///{folder}/aes.db", tiny_data().save(folder / "data"))
    search.run()
    return search


@pytest.fixture(scope="session")
def unbroken(done: Search) -> dict[str, Trials]:
    return finished(done)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/aes.db"
