"""The wheel holds what it must and nothing else, and works outside the checkout."""

from __future__ import annotations

import email.parser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout gets no build folder."""
    pytest.importorskip("setuptools", reason='pip install -e ".[dev]"')
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for top in ("optuna_aes", "tests", "studies", "examples"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                target = source / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", "--target", str(folder), str(wheel))
    return folder


def pip(command: str, *arguments: str) -> None:
    call = [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--no-index", *arguments]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def python(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S would hide the dependencies too; a path of one's own comes before site-packages and its editable installs.
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"optuna_aes", "optuna_aes-0.1.0.dist-info"}
    source = {str(p.relative_to(ROOT)) for p in (ROOT / "optuna_aes").rglob("*.py")}
    assert {n for n in names if n.endswith(".py")} == source
    assert "optuna_aes/py.typed" in names


def test_its_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = "optuna_aes-0.1.0.dist-info"
        metadata = email.parser.Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        assert archive.read(f"{info}/licenses/LICENSE").startswith(b"MIT License")
        assert "optuna-aes = optuna_aes.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert (metadata["Name"], metadata["License-Expression"]) == ("optuna-aes", "MIT")
    assert metadata["Requires-Python"] == ">=3.10"
    assert {"postgres", "dashboard"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "torch" in str(metadata.get_all("Requires-Dist"))
    assert str(metadata.get_payload()).startswith("# optuna_aes")


def test_it_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = (
        "import optuna_aes as a; print(a.__file__, a.__version__, a.EmbeddingSpace({'a': 3}), a.Search, a.load_model)"
    )
    done = python(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{installed}/optuna_aes/__init__.py 0.1.0 EmbeddingSpace")


def test_its_command_line_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    done = python(installed, tmp_path, "-m", "optuna_aes", "--help")
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout
    done = python(installed, tmp_path, "-m", "optuna_aes", "status", "--storage", "sqlite:///none.db")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert (installed / "bin/optuna-aes").exists() or os.name == "nt"


def test_the_budget_alone_needs_no_torch(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, optuna_aes as a; s = a.EmbeddingSpace({'a': 3}); a.AdaSSSampler(s, a.MemoryBudget(s, fraction=0.5));"
        "a.BudgetPruner; print('torch' in sys.modules)"
    )
    assert python(installed, tmp_path, "-c", code).stdout == "False\n"
