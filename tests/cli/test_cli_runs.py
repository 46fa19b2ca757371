"""Whole runs, as a user makes them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Ended

import optuna_aes

Run = Callable[..., Ended]
COUNTS = {"requested", "finished", "running", "failed", "pruned"}
POINT = {"trial", "sizes", "params", "bytes", "feasible", "auc_valid", "auc_test", "logloss_test", "seeds", "uniform"}


@pytest.fixture
def searched(folder: Path, aes: Run) -> Path:
    assert aes("search", "clicks.csv", *SMALL).code == 0
    return folder


def counts(aes: Run) -> dict[str, tuple[int, int]]:
    stages = json.loads(aes("status", "--json").out)["stages"]
    return {stage: (c["finished"], c["requested"]) for stage, c in stages.items()}


def test_a_search_from_table_to_model(folder: Path, aes: Run) -> None:
    ended = aes("search", "clicks.csv", *SMALL)

    assert (ended.code, ended.err) == (0, "")
    for text in ("fit: epoch 1/2", "fit done", "search: 24/24", "retrain: 1/1", "clicks  adass · deepfm · budget", "★"):
        assert text in ended.out
    assert "optuna-aes export --name clicks --out clicks-model" in ended.out
    assert "\x1b" not in ended.out

    found = json.loads(aes("status", "--json").out)
    assert set(found) == {"study", "strategy", "stages"}
    assert (found["study"], found["strategy"]) == ("clicks", "adass")
    assert list(found["stages"]) == ["fit", "search", "retrain"]
    assert all(set(stage) >= COUNTS for stage in found["stages"].values())
    assert counts(aes) == {"fit": (1, 1), "search": (24, 24), "retrain": (1, 1)}
    assert "24/24" in aes("status").out

    front = json.loads(aes("pareto", "--json").out)
    assert set(front) >= {"study", "strategy", "backbone", "budget", "full", "front", "points"}
    assert set(front["budget"]) == {"params", "bytes"}
    assert all(set(point) >= POINT for point in front["points"])
    assert set(front["points"][0]["sizes"]) == {"user", "item", "hour"}

    page = aes("pareto", "--html", "front.html")
    assert page.code == 0
    assert "report: front.html" in page.out
    assert "<html" in (folder / "front.html").read_text(encoding="utf-8").lower()

    assert aes("export", "--out", "model").code == 0
    model = optuna_aes.load_model(folder / "model")
    assert sum(p.numel() for p in model.parameters()) > 0


def test_the_same_command_again_redoes_nothing_and_more_goes_on(searched: Path, aes: Run) -> None:
    first = json.loads(aes("pareto", "--json").out)

    again = aes("search", "clicks.csv", *SMALL)
    assert again.code == 0
    assert "fit: epoch" not in again.out
    assert again.out.count("done before") == 3
    assert json.loads(aes("pareto", "--json").out) == first

    more = aes("search", "clicks.csv", *SMALL, "--trials", "36", "--retrain", "2", "--reference")
    assert more.code == 0
    assert "search goes on after 24 of 36 trials" in more.out
    requested = counts(aes)
    assert requested["search"] == (36, 36)
    assert requested["retrain"][0] == requested["retrain"][1] >= 4
    points = json.loads(aes("pareto", "--json").out)["points"]
    assert {p["params"] for p in points if p["uniform"]} >= {first["full"]["params"]}
    kept = {p["trial"]: p for p in points}
    assert all(kept[p["trial"]] == p for p in first["points"] if not p["uniform"])


def test_quiet_and_json(folder: Path, aes: Run) -> None:
    quiet = aes("search", "clicks.csv", *SMALL, "--quiet")
    assert quiet == Ended(0, "", "")

    ended = aes("search", "clicks.csv", *SMALL, "--json")
    assert json.loads(ended.out)["study"] == "clicks"
    assert "fit done" in ended.err

    both = aes("search", "clicks.csv", *SMALL, "--json", "--quiet")
    assert (json.loads(both.out)["study"], both.err) == ("clicks", "")


def test_before_anything_is_retrained(folder: Path, aes: Run) -> None:
    assert aes("search", "clicks.csv", *SMALL, "--retrain", "0").code == 0

    ended = aes("pareto")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert "24 of 24 trials scored" in ended.out
    assert json.loads(aes("pareto", "--json").out)["points"] == []
    refused = aes("pareto", "--html", "x.html")
    assert refused.code == 2
    assert "nothing for a report yet" in refused.err


def test_one_storage_with_two_searches(searched: Path, aes: Run) -> None:
    assert aes("search", "clicks.csv", *SMALL, "--name", "other", "--seed", "1").code == 0
    ended = aes("status")
    assert ended.code == 2
    assert "holds 2 searches (clicks, other): give --name" in ended.err
    assert aes("status", "--name", "other").code == 0


def test_a_recipe_and_a_given_split(folder: Path, aes: Run) -> None:
    header, *rows = (folder / "clicks.csv").read_text(encoding="utf-8").splitlines()
    (folder / "table").mkdir()
    for name, part in (("train", rows[:1400]), ("valid", rows[1400:1700]), ("test", rows[1700:])):
        (folder / "table" / f"{name}.csv").write_text("\n".join([header, *part]) + "\n", encoding="utf-8")
    (folder / "mine.toml").write_text(
        'data = "table"\nepochs = 1\nhidden = [8]\nbatch_size = 256\ndim = 2\ntrials = 12\nretrain = 1\nthreads = 1\n'
        'artifacts = "weights"\nbackbone = "mlp"\n',
        encoding="utf-8",
    )

    ended = aes("search", "mine.toml", "--no-reference")

    assert ended.code == 0
    assert "1,400 + 300 + 300 rows" in ended.out
    assert "mine · adass on mlp · sizes 0 1 2" in ended.out
    assert any((folder / "weights").iterdir())
    assert counts(aes)["search"] == (12, 12)


def test_a_server_holds_the_search(folder: Path, aes: Run, postgres_url: str) -> None:
    ended = aes("search", "clicks.csv", *SMALL, "--storage", postgres_url)

    assert (ended.code, ended.err) == (0, "")
    assert json.loads(aes("status", "--storage", postgres_url, "--json").out)["stages"]["search"]["finished"] == 24
    assert not list(folder.glob("*.db"))


def test_status_and_pareto_load_neither_torch_nor_tables(searched: Path) -> None:
    for command in ("status", "pareto"):
        code = (
            "import sys; from optuna_aes.cli import main; "
            f"assert main([{command!r}]) == 0; "
            "print('HEAVY', sorted({'torch', 'sklearn', 'polars', 'plotly'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "HEAVY []" in done.stdout


def test_the_console_script_and_the_module(folder: Path) -> None:
    for command in ([str(Path(sys.executable).parent / "optuna-aes")], [sys.executable, "-m", "optuna_aes"]):
        done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        for name in ("search", "demo", "status", "pareto", "export", "dashboard"):
            assert re.search(rf"\b{name}\b", done.stdout)
        assert subprocess.run([*command, "status"], capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("command", ["search", "demo", "status", "pareto", "export", "dashboard"])
def test_every_command_explains_its_options(command: str, aes: Run) -> None:
    ended = aes(command, "--help")
    assert ended.code == 0
    assert "--help" in ended.out


def test_a_reader_that_has_seen_enough(searched: Path) -> None:
    command = f'"{sys.executable}" -m optuna_aes pareto --json'
    shell = f"set -o pipefail; {command} | true"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_dashboard_serves_the_front(searched: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    pytest.importorskip("optuna_dashboard", reason='pip install "optuna-aes[dashboard]"')
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    process = start("dashboard", "--name", "clicks", "--host", "127.0.0.1", "--port", str(port))
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
                studies = json.load(answer)["study_summaries"]
            break
        except OSError:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert {"clicks", "clicks/fit", "clicks/retrain"} <= {s["study_name"] for s in studies}
    number = next(s["study_id"] for s in studies if s["study_name"] == "clicks")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies/{number}", timeout=5) as answer:
        assert [f["id"] for f in json.load(answer)["plotly_graph_objects"]] == ["optuna-aes-front"]


def test_without_the_dashboard_its_command_says_how_to_get_it(
    searched: Path, aes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna_aes.cli import dashboard

    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda name: None)
    ended = aes("dashboard")
    assert ended.code == 2
    assert 'pip install "optuna-aes[dashboard]"' in ended.err


DATA = Path(os.environ.get("OPTUNA_AES_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("recipe", "variable", "table"),
    [("adult_adass", "ADULT_DIR", "adult"), ("movielens_adass", "MOVIELENS_DIR", "ml-latest-small")],
)
def test_the_real_tables(
    recipe: str, variable: str, table: str, folder: Path, aes: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (DATA / table).is_dir():
        pytest.skip(f"no folder {table} beside the checkout, in ../shared/data")
    monkeypatch.setenv(variable, str(DATA / table))
    path = Path(__file__).parents[2] / "studies" / f"{recipe}.toml"
    small = [*SMALL[SMALL.index("--device") :], "--epochs", "1", "--trials", "12", "--retrain-seeds", "1", "--json"]

    ended = aes("search", str(path), *small)

    assert ended.code == 0, ended.err
    (point,) = json.loads(ended.out)["points"]
    assert point["feasible"]
    assert point["auc_test"] > 0.55
