"""Whether what a search stored can be had again from its own records."""

from __future__ import annotations

import numpy as np
from torch import set_num_threads

from optuna_aes import Search
from optuna_aes.models.evaluation import auc, predict
from optuna_aes.models.training import Trainer
from optuna_aes.search.fit import load_supernet
from optuna_aes.search.read import Record, result
from optuna_aes.search.records import METRICS, SEED, scores
from optuna_aes.search.retrain import build_model
from optuna_aes.search.studies import trials_of


def not_reproduced(record: Record) -> tuple[list[str], int]:
    """Trains the points of the front again, and scores all trials of the search again.

    Returns:
        What came out otherwise, a line each; and how many points the front has.
    """
    set_num_threads(1)
    search = Search.load(record.name, record.storage, device="cpu", threads=1)
    context, task, wrong = search.context, search.context.task, list[str]()
    front = result(record).front
    for point in front:
        (trial,) = trials_of(record.studies.retrain, [point.trial])
        seed, metrics = int(trial.user_attrs[SEED]), trial.user_attrs[METRICS]
        model = build_model(context, record.retrain_space.from_params(trial.params), seed)
        Trainer(model, task.dataset.train, task.dataset.valid, task.train, seed=seed).run()
        again = auc(predict(model, task.dataset.test, task.train.eval_batch_size), task.dataset.test.labels)
        if not again == metrics["auc_test"] == trial.values[0]:
            wrong.append(f"point {point.trial}: {trial.values[0]} stored, {again} again")
    known = scores(record.studies.search, record.budget)
    scorer = context.one_shot.scorer(load_supernet(context), task.dataset, seed=context.seed)
    for start in range(0, len(known), 16):
        again = scorer(known.choices[start : start + 16])
        for number, old, new in zip(
            known.numbers[start : start + 16], known.aucs[start : start + 16], again, strict=True
        ):
            if not np.isclose(old, new, rtol=0, atol=1e-5):
                wrong.append(f"trial {number}: {old} stored, {new} again")
    return wrong, len(front)
