"""A folder is a floor: its modules import only from their own floor and the floors above it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import optuna_aes

ROOT = Path(optuna_aes.__file__).parent
FLOORS = (
    "errors",
    "space",
    "budget",
    "data",
    "models",
    "strategies",
    "samplers",
    "pruners",
    "storage",
    "export",
    "search",
    "visualization",
    "cli",
)
DOORS = ("__init__", "__main__")  # the package's front door may open any floor
WITHOUT_TORCH = ("errors", "space", "budget")
WITHOUT_OPTUNA = ("errors", "data", "models", "strategies")
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def floor_of(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported(source: str, module: Path) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, at its top, in functions, or for type checking only."""
    package = ("optuna_aes", *module.parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            stem = ".".join(base + ([node.module] if node.module else []))
            # "from optuna_aes import budget" names a module, "from optuna_aes.budget import parse_bytes" a function:
            # the floor can be read off both.
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def floors_imported(source: str, module: Path) -> set[str]:
    names = (name.split(".") for name in imported(source, module))
    return {parts[1] for parts in names if parts[0] == "optuna_aes" and len(parts) > 1}


def offences(source: str, module: Path) -> list[str]:
    floor = floor_of(module)
    allowed = FLOORS[: FLOORS.index(floor) + 1]
    found = [f"imports from {other}" for other in sorted(floors_imported(source, module)) if other not in allowed]
    packages = {name.split(".")[0] for name in imported(source, module)}
    if floor in WITHOUT_TORCH and "torch" in packages:
        found.append("imports torch")
    if floor in WITHOUT_OPTUNA and "optuna" in packages:
        found.append("imports optuna")
    return found


@pytest.mark.parametrize("module", [m for m in MODULES if str(m.with_suffix("")) not in DOORS], ids=str)
def test_a_module_imports_only_from_its_own_floor_and_those_above(module: Path) -> None:
    assert floor_of(module) in FLOORS, f"give {module} a place in FLOORS, or move it into a floor"
    assert offences((ROOT / module).read_text(encoding="utf-8"), module) == []


def test_modules_are_found() -> None:
    assert {"space", "budget", "data", "models"} <= {floor_of(module) for module in MODULES}


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("from optuna_aes.models.rows import RowTable", "data/dataset.py", ["imports from models"]),
        ("import optuna_aes.search", "strategies/adass.py", ["imports from search"]),
        ("from optuna_aes import cli", "export.py", ["imports from cli"]),
        ("from ..models import rows", "data/dataset.py", ["imports from models"]),
        ("from .. import models", "data/sources/csv.py", []),  # optuna_aes.data.models
        ("from . import dataset", "data/dataset.py", []),
        ("def f():\n    import torch.nn", "space.py", ["imports torch"]),
        ("if x:\n    from optuna.trial import Trial", "strategies/adass/fit.py", ["imports optuna"]),
        ("import optuna", "space.py", []),
        ("import optuna_dashboard, torchrec", "space.py", []),
        ("from optuna_aes.budget import MemoryBudget", "samplers/adass.py", []),
        ("from optuna_aes.whatever import x", "cli.py", ["imports from whatever"]),
    ],
)
def test_the_check_itself(source: str, module: str, expected: list[str]) -> None:
    assert offences(source, Path(module)) == expected
