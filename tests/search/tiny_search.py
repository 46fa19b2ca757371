"""A search that takes a second: planted data of four fields, three sizes, a dozen trials."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

from optuna_aes import AdaSS, Dataset, ModelOptions, PolicyOptions, SamplingOptions, Search, Task, TrainOptions
from optuna_aes.data.synthetic import PlantedField, planted
from optuna_aes.search.progress import Silent

Trials = list[tuple[dict[str, Any], list[float]]]

FIELDS = (
    PlantedField("user", 60, 2),
    PlantedField("item", 40, 2),
    PlantedField("hour", 12, 1),
    PlantedField("noise", 80, 0, main=0.0),
)
TRAIN = TrainOptions(epochs=2, batch_size=512, lr=2e-2)
STRATEGY = AdaSS(
    sampling=SamplingOptions(probes=2, probe_rows=256, paths=4),
    policy=PolicyOptions(group=4, levels=(1.0, 0.5)),
    score_rows=1000,
)


def tiny_data(*, seed: int = 0, fields: tuple[PlantedField, ...] = FIELDS) -> Dataset:
    return planted(fields, rows=(3000, 1000, 1000), seed=seed)


def tiny_task(dataset: Dataset, **changes: Any) -> Task:
    options: dict[str, Any] = {
        "model": ModelOptions(hidden=(8,), init_std=0.1),
        "train": TRAIN,
        "candidates": (0, 2, 4),
        "device": "cpu",
        "threads": 1,
    }
    return Task(dataset, **{**options, **changes})


def tiny_search(storage: Any, dataset: Dataset, *, task: Task | None = None, **changes: Any) -> Search:
    options: dict[str, Any] = {"name": "tiny", "strategy": STRATEGY, "budget": 0.5, "trials": 10, "retrain": 2}
    return Search.create(task or tiny_task(dataset), storage=storage, **{**options, **changes})


def finished(search: Search) -> dict[str, Trials]:
    """Sizes and values of the finished trials of every stage: those of fit and search in the order of their numbers."""
    studies = search.context.studies
    stages = {"fit": studies.fit, "search": studies.search, "retrain": studies.retrain}
    found = {
        stage: [(t.params, t.values) for t in study.get_trials(states=(TrialState.COMPLETE,))]
        for stage, study in stages.items()
    }
    # A training that was stopped goes on at the end of the queue.
    return {**found, "retrain": sorted(found["retrain"], key=str)}


def counts(search: Search, stage: str) -> tuple[int, int]:
    found = search.status()["stages"][stage]
    return found["finished"], found["requested"]


class Heard(Silent):
    """Writes down what it hears, and presses Ctrl-C at one of the calls."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.stop_at = stop_at

    def _hear(self, call: str, *values: Any) -> None:
        self.calls.append((call, values))
        if self.stop_at == (call, self.count(call)):
            raise KeyboardInterrupt

    def count(self, call: str) -> int:
        return sum(c == call for c, _ in self.calls)

    def last(self, call: str) -> Any:
        return [values for c, values in self.calls if c == call][-1]

    def stage(self, stage: str, finished: int, requested: int) -> None:
        self._hear("stage", stage, finished, requested)

    def note(self, text: str) -> None:
        self._hear("note", text)

    def step(self, done: int, total: int, rows_per_second: float) -> None:
        self._hear("step", done, total)

    def epoch(self, epoch: Any, total: int) -> None:
        self._hear("epoch", epoch.number, total)

    def scored(self, finished: int, requested: int, best_auc: float, front: int) -> None:
        self._hear("scored", finished, requested, best_auc, front)

    def retrained(self, finished: int, requested: int, auc_valid: float, params: int) -> None:
        self._hear("retrained", finished, requested, auc_valid, params)
