from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from optuna_aes.samplers.trials import TrialRows, read_trials
from optuna_aes.space import EmbeddingSpace
from optuna_aes.storage import BulkStorage, add_trials, open_storage

SPACE = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 1, 4))
DISTRIBUTIONS: dict[str, BaseDistribution] = dict(SPACE.distributions())


@pytest.fixture(params=["ours", "in memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    return open_storage(f"sqlite:///{tmp_path}/aes.db") if request.param == "ours" else InMemoryStorage()


def new_study(storage: BaseStorage, name: str = "s") -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, directions=["maximize", "minimize"])


def of(user: int, item: int, value: float = 0.5) -> FrozenTrial:
    params = {"size:user": user, "size:item": item}
    return create_trial(values=[value, 1.0], params=params, distributions=DISTRIBUTIONS)


def test_positions_are_numbers(storage: BaseStorage) -> None:
    study = new_study(storage)
    assert len(read_trials(study, SPACE)) == 0
    add_trials(study, [of(0, 4), of(4, 1, -np.inf)])
    study.add_trial(create_trial(state=TrialState.PRUNED, params={"size:user": 1}, distributions={"size:user": ANY}))
    study.enqueue_trial({"size:user": 1})
    trials = read_trials(study, SPACE)
    assert trials.choices.tolist() == [[0, 2], [2, 1], [1, -1], [-1, -1]]
    np.testing.assert_array_equal(trials.values, [[0.5, 1.0], [-np.inf, 1.0], [np.nan] * 2, [np.nan] * 2])
    assert trials.complete.tolist() == trials.has_sizes.tolist() == [True, True, False, False]
    assert [trials.count(state) for state in (TrialState.COMPLETE, TrialState.WAITING, TrialState.FAIL)] == [2, 1, 0]


ANY = CategoricalDistribution((0, 1, 4))


def test_what_is_no_candidate_is_no_choice() -> None:
    study = new_study(InMemoryStorage())
    other = CategoricalDistribution((0, 3, "4", 9))
    for value in other.choices:
        study.add_trial(create_trial(values=[1, 1], params={"size:user": value}, distributions={"size:user": other}))
    assert read_trials(study, SPACE).choices[:, 0].tolist() == [0, -1, -1, -1]


class Counting(BulkStorage):
    """Counts the trials that it reads."""

    asked = 0
    read = 0

    def read_trials(self, *args: Any, **kwargs: Any) -> TrialRows:
        rows = super().read_trials(*args, **kwargs)
        self.asked += 1
        self.read += len(rows.ids)
        return rows


def test_only_new_and_unfinished_trials_are_read(tmp_path: Path) -> None:
    storage = Counting(f"sqlite:///{tmp_path}/aes.db")
    study = new_study(storage)
    add_trials(study, [of(0, 1)] * 5)
    running = study.ask()
    assert [len(read_trials(study, SPACE)) for _ in range(2)] == [6, 6]
    assert storage.read == 6 + 1
    SPACE.suggest(running)
    study.tell(running, (0.5, 1.0))
    add_trials(study, [of(4, 4)] * 2)
    # Whoever opens the study again in this process goes on from what is known.
    again = optuna.load_study(study_name="s", storage=storage)
    assert read_trials(again, SPACE).complete.all()
    assert storage.read == 7 + 3
    assert read_trials(again, SPACE).version == read_trials(study, SPACE).version
    assert storage.read == 10


def test_what_was_read_does_not_change_under_the_reader(storage: BaseStorage) -> None:
    study = new_study(storage)
    running = study.ask()
    before = read_trials(study, SPACE)
    SPACE.suggest(running)
    study.tell(running, (0.5, 1.0))
    assert read_trials(study, SPACE).complete.tolist() == [True]
    assert before.complete.tolist() == before.has_sizes.tolist() == [False]


def test_a_study_that_is_made_anew_is_read_anew(storage: BaseStorage) -> None:
    for count in (3, 2):
        study = new_study(storage)
        assert len(read_trials(study, SPACE)) == 0
        add_trials(study, [of(0, 1)] * count)
        assert len(read_trials(study, SPACE)) == count
        optuna.delete_study(study_name="s", storage=storage)


def test_studies_and_spaces_are_told_apart(storage: BaseStorage) -> None:
    one, two = new_study(storage, "one"), new_study(storage, "two")
    wider = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(0, 1, 2, 4))
    add_trials(one, [of(4, 0)])
    assert len(read_trials(two, SPACE)) == 0
    assert read_trials(one, SPACE).choices.tolist() == [[2, 0]]
    assert read_trials(one, wider).choices.tolist() == [[3, 0]]


def test_a_space_without_gaps_has_integer_parameters(storage: BaseStorage) -> None:
    study = new_study(storage)
    whole = EmbeddingSpace({"user": 957, "item": 4082}, candidates=(2, 3, 4, 5))
    params = {"size:user": 5, "size:item": 3}
    trial = create_trial(values=[0.5, 1.0], params=params, distributions=dict(whole.distributions()))
    add_trials(study, [trial])
    assert read_trials(study, whole).choices.tolist() == [[3, 1]]


def test_threads_read_together(storage: BaseStorage) -> None:
    study = new_study(storage)
    failures: list[str] = []

    def look() -> None:
        for _ in range(30):
            trials = read_trials(study, SPACE)
            if not (trials.complete.all() and trials.has_sizes.all() and np.isfinite(trials.values).all()):
                failures.append(f"{len(trials)} trials, not all whole")

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        add_trials(study, [of(1, 4)] * 3)
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(read_trials(study, SPACE)) == 60
