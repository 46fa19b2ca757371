"""The README's Python, run as it stands there; and its links and commands, which must exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from optuna_aes.cli.app import app
from optuna_aes.cli.options import option_types

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def run(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_example_is_ten_lines() -> None:
    assert len(PYTHON) == 2
    assert len(PYTHON[0].splitlines()) <= 10


@pytest.mark.slow
def test_the_first_example(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    user, item = rng.integers(40, size=3000), rng.integers(20, size=3000)
    click = (rng.random(3000) < np.where(user % 2 == item % 2, 0.7, 0.2)).astype(int)
    pl.DataFrame({"user": user, "item": item, "click": click}).write_parquet(tmp_path / "clicks.parquet")
    text = run(PYTHON[0], tmp_path)
    assert re.match(r"0\.\d{4} \d+ \{'user': ", text)
    assert (tmp_path / "model/sizes.json").exists()


def test_the_plain_optuna_example(tmp_path: Path) -> None:
    before = "def train_my_model(sizes):\n    return 0.5 + sizes['user'] / 100 + sizes['item'] / 50\n"
    after = (
        "\nimport sys\nassert 'torch' not in sys.modules\nassert len(study.trials) == 50\n"
        "assert max(t.values[1] for t in study.trials) <= budget.params\n"
    )
    run(before + PYTHON[1] + after, tmp_path)


def test_what_it_names_is_there() -> None:
    for path in re.findall(r"(?:studies|examples)/[\w/]+\.\w+", README):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"`make (\w+)`|^make (\w+) ", README, flags=re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), target


def test_its_commands_and_options_are_there() -> None:
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    commands |= {str(group.name) for group in app.registered_groups}
    assert set(re.findall(r"^(?:\$ )?optuna-aes (\w+)", README, flags=re.MULTILINE)) <= commands
    known = {"--" + name.replace("_", "-") for name in option_types()}
    others = {
        "--html",
        "--out",
        "--trial",
        "--constraint",
        "--strategies",
        "--seeds",
        "--shares",
        "--inherited",
        "--watch",
        "--dry-run",
    }
    for bench in (ROOT / "studies/bench").glob("*.py"):
        others |= set(re.findall(r'add_argument\("(--[a-z-]+)"', bench.read_text(encoding="utf-8")))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known | others


def test_its_picture_is_small() -> None:
    assert (ROOT / "studies/pictures/front.png").stat().st_size < 200_000
