from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch

from optuna_aes.errors import InputError, StorageError
from optuna_aes.storage import Checkpoints, RDBArtifactStore, open_artifact_store, open_storage


@pytest.fixture
def study(storage_url: str) -> optuna.Study:
    return optuna.create_study(study_name="s", storage=open_storage(storage_url))


@pytest.fixture
def store(study: optuna.Study) -> Any:
    return open_artifact_store(None, cast(Any, study._storage)._backend)


@pytest.fixture(params=["database", "folder", "s3"])
def any_store(request: pytest.FixtureRequest, study: optuna.Study, tmp_path: Path) -> Any:
    """A store of every kind; both databases come with the study."""
    if request.param == "database":
        return request.getfixturevalue("store")
    if request.param == "s3":
        return open_artifact_store(f"s3://{request.getfixturevalue('bucket')}", cast(Any, study._storage)._backend)
    return open_artifact_store(f"{tmp_path}/blobs", cast(Any, study._storage)._backend)


def step_of(checkpoints: Checkpoints) -> int:
    found = checkpoints.load()
    assert found is not None
    return found[2]


def index(study: optuna.Study, key: str = "fit") -> list[dict[str, Any]]:
    return study._storage.get_study_system_attrs(study._study_id)[f"aes:checkpoint:{key}"]


def fill(checkpoints: Checkpoints, *steps: int) -> None:
    for step in steps:
        checkpoints.save({"w": torch.full((3,), float(step))}, {"epoch": step}, step=step)


def lose(store: Any, name: str) -> None:
    store.remove(name)


def spoil(store: Any, name: str) -> None:
    content = bytearray(store.open_reader(name).read())
    content[-1] ^= 1
    store.write(name, io.BytesIO(bytes(content)))


def cut(store: Any, name: str) -> None:
    store.write(name, io.BytesIO(store.open_reader(name).read()[:20]))


def test_nothing_yet(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    assert checkpoints.load() is None
    checkpoints.remove()
    assert study._storage.get_study_system_attrs(study._study_id) == {}


def test_bit_exact(store: Any, study: optuna.Study) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = {
        "float": torch.tensor([0.1, -0.0, math.inf, math.nan, 1e-45]),
        "half": torch.tensor([0.1, 3.0], dtype=torch.bfloat16),
        "int": torch.tensor([2**62, -1]),
        "byte": torch.get_rng_state(),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "other empty": torch.zeros(4, 0),
        "transposed": base.t(),
        "shared": base,
        "slice": base[1:],
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    meta = {"auc": 0.1 + 0.2, "nested": {"list": [1, None, "ü"]}, "nan": math.nan}
    Checkpoints(store, study, key="fit").save(tensors, meta, step=7)
    loaded = Checkpoints(store, study, key="fit").load()
    assert loaded is not None
    assert loaded[2] == 7
    assert loaded[1].pop("nan") != meta.pop("nan")
    assert loaded[1] == meta
    assert loaded[0].keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (loaded[0][name].dtype, loaded[0][name].shape) == (tensor.dtype, tensor.shape)
        same = loaded[0][name].reshape(-1).view(torch.uint8), tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(*same), name
    loaded[0]["float"].add_(1)  # the caller's own


def test_no_tensors(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    checkpoints.save({}, {}, step=0)
    assert checkpoints.load() == ({}, {}, 0)


def test_keeps_two(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    removed = []
    for step in range(5):
        fill(checkpoints, step)
        removed.append(index(study)[0]["artifact_id"])
    assert [entry["step"] for entry in index(study)] == [3, 4]
    kept = {entry["artifact_id"] for entry in index(study)}
    for name in set(removed) - kept:
        with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
            store.open_reader(name)
    checkpoints.remove()
    assert checkpoints.load() is None
    for name in kept:
        with pytest.raises(optuna.artifacts.exceptions.ArtifactNotFound):
            store.open_reader(name)


def test_keys_are_apart(store: Any, study: optuna.Study) -> None:
    fill(Checkpoints(store, study, key="a"), 1)
    fill(Checkpoints(store, study, key="b"), 2)
    Checkpoints(store, study, key="a").remove()
    assert Checkpoints(store, study, key="b").load() is not None


def test_same_step_is_replaced(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    fill(checkpoints, 1, 2, 2)
    assert [entry["step"] for entry in index(study)] == [1, 2]
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[2] == 2


def test_max_step(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    fill(checkpoints, 1, 2)
    loaded = checkpoints.load(max_step=1)
    assert loaded is not None
    assert loaded[1:] == ({"epoch": 1}, 1)
    assert checkpoints.load(max_step=0) is None


@pytest.mark.parametrize(("damage", "what"), [(lose, "missing"), (spoil, "damaged"), (cut, "damaged")])
def test_falls_back_with_a_note(
    any_store: Any, study: optuna.Study, damage: Callable[[Any, str], None], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    notes: list[str] = []
    checkpoints = Checkpoints(any_store, study, key="fit", note=notes.append)
    fill(checkpoints, 1, 2)
    damage(any_store, index(study)[1]["artifact_id"])
    for _ in range(2):  # said once
        assert step_of(checkpoints) == 1
        assert notes == [f"of the checkpoints of fit, 2 is {what}: going on from checkpoint 1"]
    damage(any_store, index(study)[0]["artifact_id"])
    with caplog.at_level(logging.WARNING):
        assert Checkpoints(any_store, study, key="fit").load() is None
    assert f"of the checkpoints of fit, 2 is {what} and 1 is {what}: no earlier one is left" in caplog.text


def test_unusable_ones_take_no_place(store: Any, study: optuna.Study) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    fill(checkpoints, 7, 8)
    for entry in index(study):
        spoil(store, entry["artifact_id"])
    assert checkpoints.load() is None
    fill(checkpoints, 1, 2)  # the work starts again
    assert [entry["step"] for entry in index(study)] == [1, 2]
    spoil(store, index(study)[1]["artifact_id"])
    assert step_of(Checkpoints(store, study, key="fit")) == 1


def test_a_slow_worker_that_was_declared_dead_takes_nothing_back(store: Any, study: optuna.Study) -> None:
    slow, quick = (Checkpoints(store, study, key="fit") for _ in range(2))
    fill(slow, 1)
    fill(quick, 2, 9, 10)
    fill(slow, 2, 3)
    assert sorted(entry["step"] for entry in index(study)) == [3, 10]
    assert step_of(slow) == 10
    fill(quick, 11)
    assert [entry["step"] for entry in index(study)] == [10, 11]


def test_those_replaced_while_they_were_read_are_no_loss(
    store: Any, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, other = (Checkpoints(store, study, key="fit") for _ in range(2))
    fill(checkpoints, 1, 2)
    listed = checkpoints._index

    def then_replaced() -> Any:
        entries = listed()
        monkeypatch.setattr(checkpoints, "_index", listed)
        fill(other, 3, 4)
        return entries

    monkeypatch.setattr(checkpoints, "_index", then_replaced)
    assert step_of(checkpoints) == 4


def test_a_checkpoint_is_named_when_it_is_whole(
    store: Any, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment of saving, what the study names can be read."""
    checkpoints, seen = Checkpoints(store, study, key="fit"), []
    fill(checkpoints, 1, 2)

    def look(call: Callable[..., None]) -> Callable[..., None]:
        def looked(*args: Any) -> None:
            for moment in (0, 1):
                if moment:
                    call(*args)
                assert all(store.open_reader(entry["artifact_id"]).read() for entry in index(study))
                seen.append(step_of(Checkpoints(store, study, key="fit")))

        return looked

    for owner, name in ((store, "write"), (store, "remove"), (checkpoints, "_write_index")):
        monkeypatch.setattr(owner, name, look(getattr(owner, name)))
    fill(checkpoints, 3)
    assert seen == [2, 2, 2, 3, 3, 3]


def test_in_a_folder(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/aes.db")
    study = optuna.create_study(storage=storage)
    store = open_artifact_store(f"{tmp_path}/blobs", storage)
    checkpoints = Checkpoints(store, study, key="fit")
    for damage in (lose, spoil, cut):
        fill(checkpoints, 1, 2, 3)
        assert len(list((tmp_path / "blobs").iterdir())) == 2
        damage(store, index(study)[1]["artifact_id"])
        loaded = checkpoints.load()
        assert loaded is not None
        assert loaded[2] == 2
        checkpoints.remove()
        assert list((tmp_path / "blobs").iterdir()) == []


def test_damaged_chunk_falls_back(storage_url: str) -> None:
    storage = open_storage(storage_url)
    study = optuna.create_study(storage=storage)
    checkpoints = Checkpoints(RDBArtifactStore(storage), study, key="fit")
    fill(checkpoints, 1, 2)
    name = index(study)[1]["artifact_id"]
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM aes_blob_chunks WHERE artifact_id = '{name}'")
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[2] == 1


def test_unreachable_store_is_no_reason_to_start_again(storage_url: str) -> None:
    storage = open_storage(storage_url)
    checkpoints = Checkpoints(RDBArtifactStore(storage), optuna.create_study(storage=storage), key="fit")
    fill(checkpoints, 1)
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE aes_blobs")
    with pytest.raises(StorageError, match="cannot read"):
        checkpoints.load()


def test_failed_write_keeps_the_old(study: optuna.Study, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(store, study, key="fit")
    fill(checkpoints, 1)

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write", full)
        with pytest.raises(StorageError, match=r"checkpoint 2 cannot be written: .*No space left"):
            fill(checkpoints, 2)
    assert [entry["step"] for entry in index(study)] == [1]
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded[2] == 1


def test_arguments(store: Any, study: optuna.Study) -> None:
    with pytest.raises(InputError, match="keep must be at least 1, and is 0"):
        Checkpoints(store, study, key="fit", keep=0)
    with pytest.raises(InputError, match="key must have 1 to 400 characters"):
        Checkpoints(store, study, key="")
    with pytest.raises(TypeError, match="not JSON serializable"):
        Checkpoints(store, study, key="fit").save({}, {"a": object()}, step=1)
