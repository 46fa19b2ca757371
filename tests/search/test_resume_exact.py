"""A training that was stopped anywhere and went on ends with the very weights of one that was not, on the CPU."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState
from tiny_search import STRATEGY, TRAIN, Heard, tiny_data, tiny_search, tiny_task

from optuna_aes import Dataset, Search
from optuna_aes.search.fit import KEY, SUPERNET
from optuna_aes.strategies.adass.strategy import AdaSS
from optuna_aes.strategies.base import Strategy
from optuna_aes.strategies.registry import strategy_class

EPOCHS, STEPS = 4, 6  # of the fit, and of each of its epochs
SAMPLING: dict[str, dict[str, Any]] = {
    "probe": {},
    "gradient": {"table": "grad"},
    "loss": {"table": "loss"},
    "fields": {"field_share": 0.5},
}
KINDS = [*SAMPLING, "separate", "dnis", "sham", "ihas", "magnitude", "saliency"]

KILLED = """
import os, sys
from test_resume_exact import Heard, search
class Killed(Heard):
    def step(self, done, total, rows_per_second):
        if done == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
search("sqlite:///" + sys.argv[1], "probe", listener=Killed()).run(["fit"])
"""


def strategy(kind: str) -> Strategy:
    if kind in SAMPLING or kind == "separate":
        sampling = replace(STRATEGY.sampling, **SAMPLING.get(kind, {"paths": 1}))
        return AdaSS(sharing="separate" if kind == "separate" else "prefix", sampling=sampling, score_rows=500)
    return strategy_class(kind)()


def search(storage: str, kind: str, *, data: Dataset | None = None, **changes: Any) -> Search:
    task = tiny_task(data or tiny_data(), fit=replace(TRAIN, epochs=EPOCHS))
    return tiny_search(storage, task.dataset, task=task, strategy=strategy(kind), **changes)


def weights(one: Search) -> dict[str, torch.Tensor]:
    found = one.context.checkpoints(one.context.studies.fit, SUPERNET, keep=1).load()
    assert found is not None
    return found[0]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        same = tensor.reshape(-1).view(torch.uint8), other[name].reshape(-1).view(torch.uint8)
        assert torch.equal(*same), name


@pytest.fixture(scope="module")
def whole(data: Dataset) -> Any:
    """The supernet of each kind, trained without a stop."""
    known: dict[str, dict[str, torch.Tensor]] = {}

    def of(kind: str) -> dict[str, torch.Tensor]:
        if kind not in known:
            one = search("sqlite://", kind, data=data)
            one.run(["fit"])
            known[kind] = weights(one)
        return known[kind]

    return of


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_in_the_middle_and_at_the_end_of_epochs(kind: str, tmp_path: Path, data: Dataset, whole: Any) -> None:
    storage = f"sqlite:///{tmp_path}/aes.db"
    # Steps are counted over all epochs, from 1. The last stop is after the last step, before its epoch is recorded.
    for stop_at, done in (
        (("step", 2), 0),  # before anything was written
        (("step", STEPS + 3), 0),
        (("epoch", 1), 1),
        (("step", STEPS // 2), 2),
        (("step", 2 * STEPS), 2),
    ):
        heard = Heard(stop_at)
        with pytest.raises(KeyboardInterrupt):
            search(storage, kind, data=data, listener=heard).run(["fit"])
        assert heard.last("stage") == ("fit", done, EPOCHS)
    last = search(storage, kind, data=data)
    last.run(["fit"])
    assert_same(weights(last), whole(kind))
    (trial,) = last.context.studies.fit.get_trials(states=(TrialState.COMPLETE,))
    assert list(trial.intermediate_values) == [1, 2, 3, 4]


@pytest.mark.parametrize("place", ["database", "folder", "s3"])
@pytest.mark.parametrize("damage", ["lost", "spoilt"])
def test_with_its_last_checkpoint_damaged(
    place: str, damage: str, tmp_path: Path, data: Dataset, whole: Any, request: pytest.FixtureRequest
) -> None:
    artifacts = {"database": lambda: None, "folder": lambda: f"{tmp_path}/blobs"}.get(
        place, lambda: f"s3://{request.getfixturevalue('bucket')}"
    )()
    options: dict[str, Any] = {"data": data, "artifacts": artifacts}
    with pytest.raises(KeyboardInterrupt):
        search(f"sqlite:///{tmp_path}/aes.db", "probe", listener=Heard(("epoch", 3)), **options).run(["fit"])
    heard = Heard()
    again = search(f"sqlite:///{tmp_path}/aes.db", "probe", listener=heard, **options)
    study, store = again.context.studies.fit, again.context.store
    newest = study._storage.get_study_system_attrs(study._study_id)[f"aes:checkpoint:{KEY}"][-1]
    assert newest["step"] == 3
    content = bytearray(store.open_reader(newest["artifact_id"]).read())
    store.remove(newest["artifact_id"])
    if damage == "spoilt":
        content[len(content) // 2] ^= 1
        store.write(newest["artifact_id"], io.BytesIO(bytes(content)))
    again.run(["fit"])
    what = "missing" if damage == "lost" else "damaged"
    assert heard.last("note") == (f"of the checkpoints of fit, 3 is {what}: going on from checkpoint 2",)
    assert [values for call, values in heard.calls if call == "epoch"] == [(3, EPOCHS), (4, EPOCHS)]
    assert_same(weights(again), whole("probe"))


@pytest.mark.slow
def test_killed_and_in_a_new_process(tmp_path: Path, data: Dataset, whole: Any) -> None:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    for step in (STEPS + 2, 3 * STEPS - 1):
        command = [sys.executable, "-W", "ignore", "-c", KILLED, f"{tmp_path}/aes.db", str(step)]
        assert subprocess.run(command, env=environment, timeout=120).returncode == -9
    last = search(f"sqlite:///{tmp_path}/aes.db", "probe", data=data)
    assert last.status()["stages"]["fit"]["epochs"] == 2  # at most one epoch is done again
    last.run(["fit"])
    assert_same(weights(last), whole("probe"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["probe", "ihas"])
def test_retrained_models_too(kind: str, tmp_path: Path, data: Dataset) -> None:
    options: dict[str, Any] = {"data": data, "retrain": 1, "reference": False, "trials": 6}
    ends = []
    for database, stops in (("whole", ()), ("parts", (("step", EPOCHS * STEPS + 3), ("step", STEPS)))):
        storage = f"sqlite:///{tmp_path}/{database}.db"
        for stop_at in stops:
            with pytest.raises(KeyboardInterrupt):
                search(storage, kind, listener=Heard(stop_at), **options).run()
        one = search(storage, kind, **options)
        point = one.run().points[0]
        study, prefix = one.context.studies.retrain, "aes:checkpoint:model/"
        (name,) = (n for n in study._storage.get_study_system_attrs(study._study_id) if n.startswith(prefix))
        found = one.context.checkpoints(study, name.removeprefix("aes:checkpoint:"), keep=1).load()
        assert found is not None
        ends.append((found[0], point.sizes, point.auc_test, point.logloss_test))
    assert_same(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]
