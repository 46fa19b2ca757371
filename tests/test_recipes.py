"""The recipes for many machines, as far as one machine can run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import typer
import yaml

from optuna_aes.cli import main
from optuna_aes.cli.app import app
from optuna_aes.search.read import open_record, status

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = [
    *("--epochs", "1", "--batch-size", "256", "--lr", "0.01", "--hidden", "8", "--dim", "4", "--device", "cpu"),
    *("--trials", "12", "--group", "6", "--retrain", "1", "--no-reference", "--threads", "1"),
]


def worker_options() -> set[str]:
    command = typer.main.get_command(app).commands["worker"]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts}


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A search that waits for workers, and what a recipe is told of it."""
    monkeypatch.chdir(tmp_path)
    users = [i * 7 % 50 for i in range(2000)]
    table = {"user": users, "item": [i % 31 for i in range(2000)], "click": [int(u % 10 < 4) for u in users]}
    pl.DataFrame(table).write_csv("clicks.csv")
    assert main(["search", "clicks.csv", "--label", "click", *SMALL, "--name", "ads", "--no-run", "--quiet"]) == 0
    # As "optuna-aes" is found where it is installed.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/optuna-aes").write_text(f'#!/bin/sh\nexec {sys.executable} -m optuna_aes "$@"\n')
    (tmp_path / "bin/optuna-aes").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    told = {"AES_STORAGE": f"sqlite:///{tmp_path}/aes.db", "AES_NAME": "ads", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **told}


def assert_done(environment: dict[str, str]) -> None:
    stages = status(open_record("ads", environment["AES_STORAGE"]))["stages"]
    assert all(counts["finished"] == counts["requested"] for counts in stages.values()), stages


def test_slurm(environment: dict[str, str]) -> None:
    script = EXAMPLES / "slurm.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_done(environment)
    away = {name: value for name, value in environment.items() if name != "AES_NAME"}
    assert subprocess.run(["bash", str(script)], env=away, capture_output=True).returncode != 0


@pytest.mark.slow
def test_ray_without_ray(environment: dict[str, str]) -> None:
    command = [sys.executable, str(EXAMPLES / "ray_workers.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert_done(environment)
    away = {**environment, "AES_NAME": "nosuch"}
    assert subprocess.run(command, env=away, capture_output=True, timeout=300).returncode == 2


def test_kubernetes() -> None:
    text = (EXAMPLES / "kubernetes.yaml").read_text(encoding="utf-8")
    (job,) = yaml.safe_load_all(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"].keys() == {"parallelism", "backoffLimit", "template"}
    assert "completions" not in job["spec"]  # one worker's end with nothing left to do ends the Job
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "OnFailure"
    (container,) = pod["containers"]
    command, *rest = container["command"]
    assert (command, rest[0]) == ("optuna-aes", "worker")
    assert {word for word in rest if word.startswith("--")} <= worker_options()
    assert set(re.findall(r"\$\((\w+)\)", " ".join(rest))) == {e["name"] for e in container["env"]} == {"AES_STORAGE"}
    assert "value" not in container["env"][0]  # the password is in a secret, not here
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["", "auto"])
def test_torchrun(tmp_path: Path, sharding: str) -> None:
    pytest.importorskip("optuna_integration", reason="pip install optuna-integration")
    for package in ("fbgemm_gpu", "torchrec") if sharding else ():
        pytest.importorskip(package, reason="see Install in the README")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "AES_SHARDING": sharding}
    command.append(str(EXAMPLES / "torchrun.py"))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    aucs = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("AUC ")]
    assert max(aucs) > 0.65
