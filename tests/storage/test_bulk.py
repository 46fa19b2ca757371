from __future__ import annotations

import copy
import datetime
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_aes.errors import InputError, StorageError
from optuna_aes.samplers.trials import TrialRows, read_trials, rows_of_trials
from optuna_aes.space import EmbeddingSpace
from optuna_aes.storage import BulkStorage, _insert, add_trials, bulk, open_storage, read_user_attr

BOTH = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
NAMES = ["size:user", "size:item", "depth", "lr", "kind"]


@pytest.fixture
def opened(storage_url: str) -> BulkStorage:
    storage = open_storage(storage_url)
    assert isinstance(storage, BulkStorage)
    return storage


class TestOptunasOwnSuite(StorageTestCase):
    @pytest.fixture
    def storage(self, opened: BulkStorage) -> BulkStorage:
        return opened


def every_kind() -> list[FrozenTrial]:
    """Trials of every state, with everything that a trial can hold."""
    sizes = CategoricalDistribution((0, 1, 2, 4))
    both = {"size:user": sizes, "size:item": sizes}
    rich = create_trial(
        values=[0.1 + 0.2, float("inf")],
        params={"size:user": 4, "size:item": 0, "depth": 3, "lr": 1e-3, "kind": "mlp"},
        distributions={
            **both,
            "depth": IntDistribution(1, 5),
            "lr": FloatDistribution(1e-5, 1.0, log=True),
            "kind": CategoricalDistribution(("mlp", None, 2.5)),
        },
        user_attrs={"note": "naïve ☃", "nested": {"a": [1, None]}},
        system_attrs={"nsga:parents": [1, 2]},
        constraints={"memory_budget": -0.25, "latency": 0.5},
    )
    rich.datetime_start = datetime.datetime(2024, 2, 3, 4, 5, 6, 789)
    rich.datetime_complete = datetime.datetime(2024, 8, 3, 4, 5, 6)
    reports = {0: 0.5, 2: float("nan"), 5: float("inf"), 7: float("-inf")}
    old = create_trial(values=[float("-inf"), 1e-300], params={}, system_attrs={"constraints": [-1.0, 2.0]})
    wider = {"depth": IntDistribution(0, 9), "lr": FloatDistribution(1e-9, 2.0, log=True)}
    return [
        rich,
        create_trial(state=TrialState.PRUNED, params={"size:user": 2}, distributions={"size:user": sizes}),
        create_trial(state=TrialState.FAIL, intermediate_values=reports),
        create_trial(state=TrialState.RUNNING, params={"size:user": 1, "size:item": 1}, distributions=both),
        create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"size:user": 1}}),
        old,
        create_trial(values=[1.0, 2.0], params={"depth": 0, "lr": 2.0}, distributions=wider),
    ]


def some(count: int, **attrs: Any) -> list[FrozenTrial]:
    sizes = CategoricalDistribution((0, 1, 2, 4))
    return [
        create_trial(
            values=[0.5, float(i)], params={"size:user": 2}, distributions={"size:user": sizes}, user_attrs=attrs
        )
        for i in range(count)
    ]


def tables(storage: BulkStorage, study_id: int) -> dict[str, list[tuple[Any, ...]]]:
    """What the database holds of a study, trials by number in place of the database's own keys."""
    found = {}
    trials = models.TrialModel.__table__
    with storage.engine.connect() as connection:
        for table in models.BaseModel.metadata.sorted_tables:
            if "trial_id" in table.c:
                keys = {c.name for c in table.primary_key} | {"trial_id", "study_id"}
                source = trials if table is trials else trials.join(table, table.c.trial_id == trials.c.trial_id)
                columns = [trials.c.number, *(c for c in table.c if c.name not in keys)]
                order = [trials.c.number, *table.primary_key.columns]
                query = sa.select(*columns).select_from(source).where(trials.c.study_id == study_id).order_by(*order)
                found[table.name] = [tuple(row) for row in connection.execute(query)]
    return found


def numbers(study: optuna.Study) -> list[int]:
    return sorted(t.number for t in study.get_trials(deepcopy=False))


# Writing


def test_the_database_holds_what_optuna_would_have_written(opened: BulkStorage, storage_url: str) -> None:
    stock = optuna.storages.RDBStorage(storage_url)
    one, two = (optuna.create_study(storage=storage, directions=BOTH) for storage in (stock, opened))
    templates = every_kind()
    one.add_trials(templates)
    before = copy.deepcopy(templates)
    assert add_trials(two, templates) == list(range(len(templates)))
    assert templates == before
    # Nothing is said of an order within user_attrs and the like, and there is none to say.
    assert tables(opened, two._study_id) == tables(opened, one._study_id)
    again = optuna.load_study(storage=pickle.loads(pickle.dumps(opened)), study_name=two.study_name)
    for trial, template in zip(again.get_trials(), templates, strict=True):
        assert (trial.state, trial.params, trial.values) == (template.state, template.params, template.values)
        assert trial.constraints == template.constraints
        assert str(trial.intermediate_values) == str(template.intermediate_values)


def test_groups_go_on_where_optuna_stopped_and_the_other_way_round(opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    other = optuna.create_study(storage=opened, directions=BOTH)
    assert add_trials(study, some(3)) == [0, 1, 2]
    assert add_trials(other, some(2)) == [0, 1]
    study.add_trials(some(2))
    study.ask()
    assert add_trials(study, some(3)) == [6, 7, 8]
    study.add_trial(some(1)[0])
    assert add_trials(study, []) == []
    assert [t.number for t in study.get_trials()] == list(range(10))


WRITE = """
import sys, warnings, optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial
from optuna_aes.storage import add_trials, open_storage
warnings.simplefilter("ignore")
me, url = int(sys.argv[1]), sys.argv[2]
study = optuna.load_study(study_name="s", storage=open_storage(url), sampler=optuna.samplers.RandomSampler(seed=me))
print("ready", flush=True)
sys.stdin.readline()
sizes = {f"size:{i}": CategoricalDistribution((0, 1, 2)) for i in range(5)}
got = []
for group in range(10):
    trials = [create_trial(values=[me, group], params=dict.fromkeys(sizes, 1), distributions=sizes) for _ in range(7)]
    if me == 0:  # a worker with stock Optuna among them
        study.add_trials(trials[:2])
    else:
        new = add_trials(study, trials)
        assert new == list(range(new[0], new[0] + 7)), new
        got += new
print(*got)
"""


@pytest.mark.slow
def test_eight_writers_at_once_keep_numbers_unique_and_dense(storage_url: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url), study_name="s", directions=BOTH)
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITE, str(me), storage_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8
    told = [int(number) for output in outputs for number in output.split()]
    trials = study.get_trials(deepcopy=False)
    assert sorted(t.number for t in trials) == list(range(7 * 70 + 20))
    assert sorted(told) == [t.number for t in trials if t.values[0] > 0]
    assert all(t.params == {f"size:{i}": 1 for i in range(5)} for t in trials)


OTHER = CategoricalDistribution((0, 1, 2, 8))


@pytest.mark.parametrize("known", ["in the database", "by this process", "in the same group"])
def test_distributions_that_do_not_go_together(storage_url: str, known: str) -> None:
    study = optuna.create_study(storage=open_storage(storage_url), directions=BOTH, study_name="s")
    odd = create_trial(values=[1.0, 1.0], params={"size:user": 8}, distributions={"size:user": OTHER})
    new = create_trial(values=[1.0, 1.0], params={"x": 1}, distributions={"x": IntDistribution(0, 1)})
    if known != "in the same group":
        add_trials(study, some(2))
    if known == "in the database":
        study = optuna.load_study(storage=open_storage(storage_url), study_name="s")
    before = numbers(study)
    with pytest.raises(ValueError, match="dynamic value space"):
        add_trials(study, [new, *some(1), odd])
    assert numbers(study) == before
    float_x = create_trial(values=[1.0, 1.0], params={"x": 1.0}, distributions={"x": FloatDistribution(0, 1)})
    add_trials(study, [float_x])  # what was refused is not known
    with pytest.raises(ValueError, match="different distribution kind"):
        add_trials(study, [new])


def test_a_deleted_studys_distributions_are_forgotten(opened: BulkStorage) -> None:
    for distribution in (CategoricalDistribution((0, 1)), OTHER):
        study = optuna.create_study(storage=opened, directions=BOTH, study_name="s")
        add_trials(study, [create_trial(values=[1.0, 1.0], params={"x": 1}, distributions={"x": distribution})])
        optuna.delete_study(study_name="s", storage=opened)


def test_what_does_not_go_with_the_study_is_refused(opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, direction="minimize")
    with pytest.raises(InputError, match="2 values and the study 1"):
        add_trials(study, some(1))
    broken = create_trial(value=1.0)
    broken.values = [float("nan")]
    with pytest.raises(InputError, match="NaN"):
        add_trials(study, [create_trial(value=1.0), broken])
    with pytest.raises(TypeError):
        add_trials(study, [create_trial(value=1.0, user_attrs={"no JSON": object()})])
    assert numbers(study) == []
    with pytest.raises(KeyError):
        opened.create_new_trials(study._study_id + 1, [create_trial(value=1.0)])


def test_a_failure_in_the_middle_leaves_nothing_and_says_so_in_a_line(opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    add_trials(study, some(2))
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_user_attributes RENAME TO hidden")
    with pytest.raises(StorageError, match="cannot record 3 trials in") as caught:
        add_trials(study, some(3, note="x"))
    assert "\n" not in str(caught.value)
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE hidden RENAME TO trial_user_attributes")
    assert numbers(study) == [0, 1]
    assert add_trials(study, some(1, note="x")) == [2]


def test_a_deadlock_is_tried_again(opened: BulkStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    insert, calls = _insert.insert, []

    def fails_once(*args: Any) -> Any:
        calls.append(args)
        inserted = insert(*args)
        if len(calls) == 1:
            raise sa.exc.OperationalError("INSERT", {}, Exception("deadlock detected"))
        return inserted

    monkeypatch.setattr(_insert, "insert", fails_once)
    assert add_trials(study, some(2)) == [0, 1]
    assert len(calls) == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda path: optuna.storages.RDBStorage(f"sqlite:///{path}/plain.db"),
        lambda path: optuna.storages.InMemoryStorage(),
        lambda path: open_storage("sqlite://"),
    ],
)
def test_any_storage_will_do(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    study = optuna.create_study(storage=make(tmp_path), directions=BOTH)
    assert add_trials(study, some(2)) + add_trials(study, some(2)) == [0, 1, 2, 3]
    assert numbers(study) == [0, 1, 2, 3]


# Reading


def read(storage: BulkStorage, study: optuna.Study, names: Sequence[str] = NAMES, **given: Any) -> TrialRows:
    return storage.read_trials(study._study_id, names, objectives=2, **given)


def optunas(study: optuna.Study, names: Sequence[str] = NAMES, **given: Any) -> TrialRows:
    return rows_of_trials(study._storage, study._study_id, names, objectives=2, **given)


def assert_equal(one: TrialRows, two: TrialRows) -> None:
    assert one.total == two.total
    orders = one.ids.argsort(), two.ids.argsort()
    for name in ("ids", "numbers", "states", "params", "values"):
        ours, theirs = getattr(one, name)[orders[0]], getattr(two, name)[orders[1]]
        np.testing.assert_array_equal(ours, theirs, err_msg=name)
        assert ours.dtype == theirs.dtype


def test_what_is_read_is_what_optuna_reads(opened: BulkStorage) -> None:
    other, study = (optuna.create_study(storage=opened, directions=BOTH) for _ in range(2))
    assert_equal(read(opened, study), optunas(study))
    add_trials(other, some(3))
    add_trials(study, every_kind())
    rows = read(opened, study)
    assert_equal(rows, optunas(study))
    first = rows.numbers.argmin()
    np.testing.assert_array_equal(rows.params[first], [4, 0, 3, 1e-3, np.nan])
    np.testing.assert_array_equal(rows.values[first], [0.1 + 0.2, np.inf])
    assert_equal(read(opened, study, []), optunas(study, []))
    ids = sorted(rows.ids.tolist())
    for since in ({"after": ids[4], "unfinished": ids[2:4]}, {"after": ids[6]}):
        assert_equal(read(opened, study, **since), optunas(study, **since))
    assert len(read(opened, study, after=ids[4], unfinished=ids[2:4]).ids) == 4


def test_many_blocks(opened: BulkStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    from optuna_aes.storage import _select

    monkeypatch.setattr(_select, "_BLOCK", 3)
    study = optuna.create_study(storage=opened, directions=BOTH)
    add_trials(study, some(10))
    assert_equal(read(opened, study), optunas(study))


def test_an_attribute_of_all_trials(opened: BulkStorage) -> None:
    plain = optuna.storages.InMemoryStorage()
    for storage in (opened, plain):
        other, study = (optuna.create_study(storage=storage, directions=BOTH) for _ in range(2))
        assert read_user_attr(study, "a") == {}
        add_trials(other, some(2, a=0))
        add_trials(study, [*some(1, b=1), *some(2, a=[1.5, None], b=2)])
        assert read_user_attr(study, "a") == {1: [1.5, None], 2: [1.5, None]}


def test_a_database_that_cannot_be_read(opened: BulkStorage) -> None:
    study = optuna.create_study(storage=opened, directions=BOTH)
    with opened.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE trial_params RENAME TO hidden")
    with pytest.raises(StorageError, match="cannot read"):
        read(opened, study)


# Schemas to come


def test_with_a_schema_that_is_not_known_optuna_does_it(opened: BulkStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "KNOWN_SCHEMA", "v0")
    monkeypatch.setattr(_insert, "insert", None)
    for name in ("select", "user_attr"):
        monkeypatch.setattr(f"optuna_aes.storage._select.{name}", None)
    study = optuna.create_study(storage=opened, directions=BOTH)
    templates = every_kind()
    assert add_trials(study, templates[:4]) + add_trials(study, templates[4:]) == list(range(7))
    space = EmbeddingSpace({"user": 9, "item": 9}, candidates=(0, 1, 2, 4))
    assert read_trials(study, space).choices.tolist() == [[3, 0], [2, -1], [-1, -1], [1, 1], *[[-1, -1]] * 3]
    assert read_user_attr(study, "note") == {0: "naïve ☃"}


def test_the_schema_of_this_optuna_is_known(opened: BulkStorage) -> None:
    assert opened.knows_schema
    assert opened.reads_trials
